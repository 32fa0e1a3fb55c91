//! The files that make a machine a node.

use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// Most files in a bundle.
const FILES_MAX: usize = 32;

/// What a node needs, relative to its configuration directory.
#[derive(Clone, Serialize, Deserialize)]
pub struct Bundle {
    /// The node it is for.
    pub node: String,
    /// The files; the configuration comes last, so that it stands only where the rest does.
    pub files: Vec<BundleFile>,
}

/// One file.
#[derive(Clone, Serialize, Deserialize)]
pub struct BundleFile {
    /// Plain relative path.
    pub path: String,
    /// Everybody may read it; else only its owner.
    pub public: bool,
    /// What is in it.
    pub content: Vec<u8>,
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let paths: Vec<&str> = self.files.iter().map(|file| file.path.as_str()).collect();
        f.debug_struct("Bundle").field("node", &self.node).field("files", &paths).finish()
    }
}

impl Bundle {
    /// The content of one file.
    pub fn content(&self, path: &str) -> Option<&[u8]> {
        self.files.iter().find(|file| file.path == path).map(|file| file.content.as_slice())
    }

    /// Writes all of it below `directory`, in order, replacing what is there.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        if self.files.len() > FILES_MAX {
            return Err(io::Error::other(format!("{} files, at most {FILES_MAX} are accepted", self.files.len())));
        }
        let paths: Vec<PathBuf> =
            self.files.iter().map(|file| Ok(directory.join(checked(&file.path)?))).collect::<io::Result<_>>()?;
        for (file, path) in self.files.iter().zip(&paths) {
            write_file(path, &file.content, if file.public { 0o644 } else { 0o600 })?;
        }
        Ok(())
    }
}

/// The path of a bundle's file: it must stay below the directory, whoever sent it.
pub(crate) fn checked(path: &str) -> io::Result<&Path> {
    let plain = !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if plain { Ok(Path::new(path)) } else { Err(io::Error::other(format!("path \"{path}\" leaves its directory"))) }
}

/// Writes a file as a whole or not at all, on the disk when this returns. A directory that is made
/// for it is for its owner only, unless the file is for everybody.
pub fn write_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let directory = super::directory(path);
    if !directory.exists() {
        fs::create_dir_all(&directory)?;
        let directory_mode = if mode & 0o044 == 0 && directory.ends_with(super::SECRETS_DIR) { 0o700 } else { 0o755 };
        fs::set_permissions(&directory, fs::Permissions::from_mode(directory_mode))?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        // The umask may have taken bits away that others need.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&new)))?;
    File::open(&directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(path: &str) -> Bundle {
        let file = BundleFile { path: path.to_owned(), public: false, content: b"x".to_vec() };
        Bundle { node: "a".to_owned(), files: vec![file] }
    }

    #[test]
    fn files_are_for_their_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        bundle("secrets/a").write(directory.path()).unwrap();
        let mode = |path: &str| fs::metadata(directory.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("secrets/a"), mode("secrets")), (0o600, 0o700));
        bundle("secrets/a").write(directory.path()).unwrap();
        assert_eq!(fs::read_dir(directory.path().join("secrets")).unwrap().count(), 1);
    }

    #[test]
    fn nothing_is_written_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        for path in ["../a", "/etc/a", "", "a/../../b", "."] {
            assert!(bundle(path).write(directory.path()).is_err(), "{path:?}");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

//! The licences of the libraries that are linked into the program, with their texts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use oarlock_lab::deadline::check;
use oarlock_lab::paths::Paths;
use serde_json::Value;

use super::program::cargo;

const ASK: Duration = Duration::from_secs(120);

/// A library: name, version, licence.
type Library = (String, String, String);

/// The whole file.
pub(super) fn text(paths: &Paths) -> Result<String> {
    let libraries = linked(paths)?;
    let places = places(paths)?;
    let mut page = String::from("Libraries contained in the program, with their licences; the texts follow.\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, version, licence) in &libraries {
        let _ = writeln!(page, "{name} {version}: {licence}");
        let place = places.get(&(name.clone(), version.clone()));
        for text in place.map(|place| licence_texts(place)).transpose()?.unwrap_or_default() {
            texts.entry(text).or_default().push(format!("{name} {version}"));
        }
    }
    for (text, of) in &texts {
        let _ = write!(page, "\n{}\n{}\n\n{}\n", "=".repeat(78), of.join(", "), text.trim_end());
    }
    Ok(page)
}

/// What cargo links into the program, ours left out.
fn linked(paths: &Paths) -> Result<BTreeSet<Library>> {
    let mut tree = Command::new(cargo());
    tree.args(["tree", "--package", "oarlock", "--edges", "normal", "--prefix", "none", "--format", "{p}|{l}"]);
    let text = check(tree.current_dir(&paths.workspace), "cannot list the libraries", ASK)?;
    let library = |line: &str| {
        let (package, licence) = line.trim_end_matches(" (*)").split_once('|')?;
        let mut words = package.split(' ');
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        (!name.starts_with("oarlock")).then(|| (name.to_owned(), version.to_owned(), licence.to_owned()))
    };
    Ok(text.lines().filter_map(library).collect())
}

/// Where the source of each package is.
fn places(paths: &Paths) -> Result<BTreeMap<(String, String), PathBuf>> {
    let mut metadata = Command::new(cargo());
    metadata.args(["metadata", "--format-version", "1", "--locked"]);
    let text = check(metadata.current_dir(&paths.workspace), "cannot list the packages", ASK)?;
    let value: Value = serde_json::from_str(&text).context("cannot read what cargo metadata prints")?;
    let place = |package: &Value| {
        let word = |key: &str| package.get(key).and_then(Value::as_str).map(str::to_owned);
        let directory = Path::new(&word("manifest_path")?).parent()?.to_owned();
        Some(((word("name")?, word("version")?), directory))
    };
    Ok(value.get("packages").and_then(Value::as_array).into_iter().flatten().filter_map(place).collect())
}

fn licence_texts(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?.flatten() {
        let name = entry.file_name().to_string_lossy().to_uppercase();
        let wanted = ["LICEN", "COPYING", "COPYRIGHT", "NOTICE"].iter().any(|start| name.starts_with(start));
        if wanted && entry.path().is_file() {
            found.push(String::from_utf8_lossy(&fs::read(entry.path())?).replace('\r', ""));
        }
    }
    found.sort();
    Ok(found)
}

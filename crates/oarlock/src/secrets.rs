//! The secrets of a cluster: what replication is authenticated and encrypted with.
//!
//! `init` makes them once; every node has the same. The certificate is pinned: servers present it,
//! clients accept this one and no other, so no authority is needed and nothing expires.

use crate::enrol::{SECRETS_DIR, write_file};
use crate::keys::random_bytes;
use p256::ecdsa::{DerSignature, SigningKey, signature::Signer};
use p256::pkcs8::{EncodePrivateKey, LineEnding};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, PublicKeyData, SignatureAlgorithm, date_time_ymd};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Password of the replication role.
const PASSWORD_FILE: &str = "replication.password";
/// Certificate of every server, PEM.
const CERTIFICATE_FILE: &str = "replication.crt";
/// Its key, PEM.
const KEY_FILE: &str = "replication.key";
/// Length of the password, in characters of six bits: as strong as a key of 192 bits.
const PASSWORD_CHARS: usize = 32;
/// Nothing in it needs quoting, in SQL, in a connection string or in a password file.
const PASSWORD_ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Why secrets could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The operating system gave no random bytes.
    #[error("no random bytes for a new secret")]
    NoRandomness(#[from] crate::keys::KeyError),
    /// The certificate could not be made.
    #[error("cannot make a certificate: {reason}")]
    Certificate {
        /// In words.
        reason: String,
    },
    /// A file is missing or cannot be read.
    #[error("secret {}", path.display())]
    File {
        /// It.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The password file does not hold one.
    #[error("secret {} does not hold a password of {PASSWORD_CHARS} letters and digits", path.display())]
    Password {
        /// It.
        path: PathBuf,
    },
}

/// What the database agents need.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecrets {
    /// Password of the replication role: letters, digits, `-` and `_` only.
    pub replication_password: String,
    /// Certificate (PEM) that every server presents and every client accepts.
    pub certificate: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
}

impl std::fmt::Debug for ClusterSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterSecrets").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl ClusterSecrets {
    /// Makes new ones in the secrets directory beside a configuration in `config_dir`; what is there
    /// is replaced.
    pub fn create(config_dir: &Path) -> Result<ClusterSecrets, SecretsError> {
        let (certificate, key) = certificate()?;
        let replication_password = password()?;
        let secrets = ClusterSecrets::at(config_dir, replication_password);
        let password_path = config_dir.join(SECRETS_DIR).join(PASSWORD_FILE);
        let password_line = format!("{}\n", secrets.replication_password);
        for (path, content) in
            [(&password_path, &password_line), (&secrets.key, &key), (&secrets.certificate, &certificate)]
        {
            write_file(path, content.as_bytes(), 0o600)
                .map_err(|source| SecretsError::File { path: path.clone(), source })?;
        }
        Ok(secrets)
    }

    /// Reads those beside a configuration in `config_dir`.
    pub fn load(config_dir: &Path) -> Result<ClusterSecrets, SecretsError> {
        let path = config_dir.join(SECRETS_DIR).join(PASSWORD_FILE);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SecretsError::File { path, source }
        };
        let text = fs::read_to_string(&path).map_err(failed(&path))?;
        let password = text.trim_end();
        if password.len() != PASSWORD_CHARS || !password.bytes().all(|byte| PASSWORD_ALPHABET.contains(&byte)) {
            return Err(SecretsError::Password { path });
        }
        let secrets = ClusterSecrets::at(config_dir, password.to_owned());
        for path in [&secrets.certificate, &secrets.key] {
            fs::File::open(path).map_err(failed(path))?;
        }
        Ok(secrets)
    }

    fn at(config_dir: &Path, replication_password: String) -> ClusterSecrets {
        let directory = config_dir.join(SECRETS_DIR);
        ClusterSecrets {
            replication_password,
            certificate: directory.join(CERTIFICATE_FILE),
            key: directory.join(KEY_FILE),
        }
    }
}

fn password() -> Result<String, SecretsError> {
    let mut bytes = [0; PASSWORD_CHARS];
    random_bytes(&mut bytes)?;
    // 64 letters divide 256: none is more likely than another.
    Ok(bytes.iter().map(|byte| char::from(PASSWORD_ALPHABET[usize::from(byte % 64)])).collect())
}

/// A key as the certificate's maker wants it.
struct Key {
    signing: SigningKey,
    public: Vec<u8>,
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature: DerSignature = self.signing.sign(message);
        Ok(signature.as_bytes().to_vec())
    }
}

/// A self-signed certificate and its key, both PEM. ECDSA P-256: PostgreSQL's channel binding needs
/// a signature with a hash of its own, which Ed25519 has not.
fn certificate() -> Result<(String, String), SecretsError> {
    let signing = loop {
        let mut bytes = [0; 32];
        random_bytes(&mut bytes)?;
        // All but one in 2^32 numbers are keys.
        if let Ok(key) = SigningKey::from_slice(&bytes) {
            break key;
        }
    };
    let failed = |error: &dyn std::fmt::Display| SecretsError::Certificate { reason: error.to_string() };
    let key_pem = signing.to_pkcs8_pem(LineEnding::LF).map_err(|error| failed(&error))?.to_string();
    let public = signing.verifying_key().to_sec1_point(false).as_bytes().to_vec();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "oarlock replication");
    // Before any clock that is wrong, and "no expiration" as RFC 5280 writes it.
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let mut serial = [0; 16];
    random_bytes(&mut serial)?;
    params.serial_number = Some(rcgen::SerialNumber::from_slice(&serial));
    let certificate = params.self_signed(&Key { signing, public }).map_err(|error| failed(&error))?;
    Ok((certificate.pem(), key_pem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_is_made_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let made = ClusterSecrets::create(directory.path()).unwrap();
        assert_eq!(ClusterSecrets::load(directory.path()).unwrap(), made);
        assert!(!format!("{made:?}").contains(&made.replication_password));
        let other = ClusterSecrets::create(directory.path()).unwrap();
        assert_ne!(other.replication_password, made.replication_password);
        fs::write(directory.path().join("secrets/replication.password"), "a'b").unwrap();
        assert!(matches!(ClusterSecrets::load(directory.path()), Err(SecretsError::Password { .. })));
        fs::remove_dir_all(directory.path().join("secrets")).unwrap();
        assert!(matches!(ClusterSecrets::load(directory.path()), Err(SecretsError::File { .. })));
    }

    #[test]
    fn openssl_accepts_it_as_its_own_anchor() {
        let directory = tempfile::tempdir().unwrap();
        let secrets = ClusterSecrets::create(directory.path()).unwrap();
        let openssl = |arguments: &[&str], file: &Path| {
            Command::new("openssl").args(arguments).arg(file).output().map(|output| {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
            })
        };
        let anchor = secrets.certificate.to_str().unwrap();
        // A machine without openssl still has the other tests, and the database's own.
        let Ok((good, text)) = openssl(&["verify", "-purpose", "sslserver", "-CAfile", anchor], &secrets.certificate)
        else {
            return;
        };
        assert!(good, "{text}");
        let (good, text) =
            openssl(&["x509", "-noout", "-checkend", "2000000000", "-in"], &secrets.certificate).unwrap();
        assert!(good, "{text}");
        let public = |arguments: &[&str], file: &Path| openssl(arguments, file).unwrap().1;
        assert_eq!(
            public(&["x509", "-noout", "-pubkey", "-in"], &secrets.certificate),
            public(&["pkey", "-pubout", "-in"], &secrets.key)
        );
    }
}

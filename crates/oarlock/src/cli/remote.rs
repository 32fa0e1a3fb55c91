//! `--host`: the same command on another machine, over the system's ssh (so that its keys, agents
//! and Kerberos tickets work).

use super::args::Command;
use super::failure::{Code, Failure};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{self, Stdio};

/// ssh's own failures end with this.
const SSH_FAILED: i32 = 255;

/// Runs it there; its exit code is ours.
pub fn run(host: &str, command: &Command, raw: &[OsString]) -> Result<Code, Failure> {
    // ssh would take it for an option.
    if host.is_empty() || host.starts_with('-') {
        return Err(Failure::new(Code::Usage, format!("\"{host}\" is not the name of a machine")));
    }
    let mut arguments = without_host(raw.get(1..).unwrap_or_default());
    let mut input = Stdio::inherit();
    if let Command::Apply { file, .. } = command
        && file != Path::new("-")
    {
        // The file is here, not there.
        let open = File::open(file);
        input =
            open.map_err(|error| Failure::new(Code::Usage, format!("cannot read {}: {error}", file.display())))?.into();
        if let Some(argument) = arguments.iter_mut().rev().find(|argument| *argument == file.as_os_str()) {
            *argument = OsString::from("-");
        }
    }
    let line = std::iter::once(OsString::from("oarlock")).chain(arguments).map(|argument| quoted(&argument));
    let status = process::Command::new("ssh")
        .args(["-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "--", host])
        .args(line)
        .stdin(input)
        .status()
        .map_err(|error| {
            Failure::new(Code::Internal, format!("cannot run ssh: {error}")).hint("--host needs ssh in PATH")
        })?;
    match status.code() {
        Some(0) => Ok(Code::Done),
        Some(1) => Ok(Code::Negative),
        Some(2) => Ok(Code::Usage),
        Some(3) => Ok(Code::NoQuorum),
        Some(4) => Ok(Code::Unsafe),
        Some(5) => Ok(Code::Internal),
        Some(SSH_FAILED) => Err(Failure::new(Code::Internal, format!("ssh to {host} failed"))),
        Some(127) => Err(Failure::new(Code::Internal, format!("there is no oarlock command on {host}"))),
        _ => Err(Failure::new(Code::Internal, format!("the command on {host} ended with {status}"))),
    }
}

/// The arguments without `--host` and its value.
fn without_host(raw: &[OsString]) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut rest = raw.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            kept.push(argument.clone());
            kept.extend(rest.cloned());
            break;
        }
        if argument == "--host" {
            rest.next();
        } else if !argument.as_bytes().starts_with(b"--host=") {
            kept.push(argument.clone());
        }
    }
    kept
}

/// One word for the remote shell.
fn quoted(argument: &OsStr) -> OsString {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./=:,@%+".contains(byte);
    if !argument.is_empty() && argument.as_bytes().iter().all(plain) {
        return argument.to_owned();
    }
    let mut word = vec![b'\''];
    for byte in argument.as_bytes() {
        match byte {
            b'\'' => word.extend_from_slice(b"'\\''"),
            other => word.push(*other),
        }
    }
    word.push(b'\'');
    OsString::from_vec(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[&str]) -> Vec<OsString> {
        line.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_host_stays_here() {
        assert_eq!(without_host(&words(&["--host", "a", "status", "--json"])), words(&["status", "--json"]));
        assert_eq!(without_host(&words(&["status", "--host=a"])), words(&["status"]));
        assert_eq!(without_host(&words(&["clear", "--", "--host", "b"])), words(&["clear", "--", "--host", "b"]));
    }

    #[test]
    fn nothing_reaches_the_remote_shell_unquoted() {
        for (word, expected) in [
            ("status", "status"),
            ("--json", "--json"),
            ("", "''"),
            ("a b", "'a b'"),
            ("$(reboot)", "'$(reboot)'"),
            ("it's", r"'it'\''s'"),
            ("a;b", "'a;b'"),
        ] {
            assert_eq!(quoted(OsStr::new(word)), expected);
        }
    }
}

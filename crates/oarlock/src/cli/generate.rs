//! `oarlock generate`.

use super::args::{Arguments, Generated};
use super::failure::{Code, Failure};
use super::output::emit;
use crate::config::reference;
use clap::CommandFactory;
use std::path::Path;

/// Prints documentation made from the program itself.
pub fn run(what: &Generated) -> Result<Code, Failure> {
    let mut text = Vec::new();
    match what {
        Generated::Man { dir: None } => man(&mut text)?,
        Generated::Man { dir: Some(dir) } => return pages(dir),
        Generated::Completions { shell } => {
            clap_complete::generate(*shell, &mut Arguments::command(), "oarlock", &mut text);
        }
        Generated::ConfigReference => text = reference::markdown().into_bytes(),
    }
    emit(&String::from_utf8_lossy(&text))?;
    Ok(Code::Done)
}

/// A page for the command, and one for each of its subcommands.
fn pages(dir: &Path) -> Result<Code, Failure> {
    clap_mangen::generate_to(Arguments::command(), dir).map_err(|error| {
        Failure::new(Code::Internal, format!("cannot write manual pages into {}: {error}", dir.display()))
    })?;
    Ok(Code::Done)
}

/// One page: the command, then each of its subcommands.
fn man(text: &mut Vec<u8>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::from_error(Code::Internal, &error);
    let mut command = Arguments::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(text).map_err(failed)?;
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        let page = clap_mangen::Man::new(subcommand.clone());
        let title = format!(".SH \"OARLOCK {}\"\n", subcommand.get_name().to_uppercase());
        text.extend_from_slice(title.as_bytes());
        page.render_description_section(text).map_err(failed)?;
        page.render_synopsis_section(text).map_err(failed)?;
        page.render_options_section(text).map_err(failed)?;
    }
    Ok(())
}

//! `cargo xtask sim`: runs seeds and says how to see a failure again.

fn main() -> std::process::ExitCode {
    oarlock_sim::cli::main()
}

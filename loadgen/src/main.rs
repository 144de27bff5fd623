//! `loadgen`: see the library.

fn main() -> std::process::ExitCode {
    loadgen::cli::main()
}

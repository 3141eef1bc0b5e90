//! The program `worker`.

fn main() -> std::process::ExitCode {
    worker::start::main()
}

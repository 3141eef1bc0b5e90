//! `queue`: submits tasks, shows what is where, says why not, and changes things. Each command is
//! a file in `cmd/`; what it knows about the pool comes from the library.

mod cmd;

fn main() -> std::process::ExitCode {
    cmd::main()
}

//! What is generated from the command line's description: completions and man pages.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use queue::cli::Failure;
use shared::exit;

use crate::cmd::{App, Cli, Stop};

/// Print completions for a shell
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// Which shell
    shell: Shell,
}

/// Print the manual page, or write all pages into a directory
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// The directory
    dir: Option<PathBuf>,
}

impl Completions {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "queue", &mut text);
        app.out.raw(&text)?;
        Ok(exit::OK)
    }
}

impl Man {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        let failed = |err: std::io::Error| {
            Failure::new(exit::UNEXPECTED, format!("could not write the manual: {err}"))
        };
        match self.dir {
            Some(dir) => {
                std::fs::create_dir_all(&dir).map_err(failed)?;
                clap_mangen::generate_to(Cli::command(), &dir).map_err(failed)?;
            }
            None => {
                let mut text = Vec::new();
                clap_mangen::Man::new(Cli::command()).render(&mut text).map_err(failed)?;
                app.out.raw(&text)?;
            }
        }
        Ok(exit::OK)
    }
}

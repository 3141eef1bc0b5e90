//! The command line: what may be said, and what it means for the fleet. Opens nothing.

use clap::Parser;
use queue::cli::servers::ServerArgs;
use queue::cli::{Common, Failure};
use queue::dir::presence::lease::host_name;
use shared::name::Name;
use shared::settings::{Flags, Settings};

use crate::core::fleet::Fleet;
use crate::core::words::worker_spec::{WorkerKind, WorkerSpec};

/// Watches the pool, recovers what dead workers left, releases what waits, and starts workers
#[derive(Parser, Clone, Debug)]
#[command(name = "brain", version, max_term_width = 100)]
pub(crate) struct Args {
    /// The GPUs to start workers for, as in `0,1,2`
    #[arg(long, value_name = "LIST", value_parser = parse_gpus)]
    pub(crate) gpus: Option<Gpus>,
    /// Also start a worker for tasks that need no GPU
    #[arg(long)]
    pub(crate) cpu: bool,
    /// Start no workers: they are started by hand
    #[arg(long)]
    pub(crate) no_spawn: bool,
    /// The fewest workers to keep [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) min_workers: Option<u32>,
    /// The most workers to start [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) max_workers: Option<u32>,
    /// Where Ollama is: the worker of GPU 0 looks at this port of this machine, that of GPU 1 at
    /// the next one; `off`: nowhere [default: 11436]
    #[arg(long, value_name = "PORT", conflicts_with_all = ["ollama_url", "openai_url"])]
    pub(crate) ollama_base_port: Option<String>,
    #[command(flatten)]
    pub(crate) servers: ServerArgs,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// A list of GPUs, each named once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gpus(pub(crate) Vec<u32>);

fn parse_gpus(text: &str) -> Result<Gpus, String> {
    let mut gpus = Vec::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let bad = || {
            format!("`{}` is not the number of a GPU; write `--gpus 0,1,2`", word.escape_default())
        };
        let gpu: u32 = word.parse().map_err(|_not_a_number| bad())?;
        if gpus.contains(&gpu) {
            return Err(format!("GPU {gpu} is named twice"));
        }
        gpus.push(gpu);
    }
    Ok(Gpus(gpus))
}

impl Args {
    /// The settings that the command line overrides.
    pub(crate) fn flags(&self) -> Flags<'static> {
        let all = [("min_workers", self.min_workers), ("max_workers", self.max_workers)];
        let port = [("ollama_base_port", self.ollama_base_port.clone())];
        let all = all.into_iter().map(|(name, n)| (name, n.map(|n| n.to_string()))).chain(port);
        all.filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// The GPUs that were named.
    pub(crate) fn gpu_list(&self) -> &[u32] {
        self.gpus.as_ref().map_or(&[], |gpus| &gpus.0)
    }

    /// The workers to start, and how many of them.
    pub(crate) fn fleet(&self, settings: &Settings) -> Result<Fleet, Failure> {
        if self.gpu_list().is_empty() && !self.cpu && !self.no_spawn {
            return Err(Failure::usage(
                "nothing to start: name GPUs with `--gpus 0,1`, or give --cpu for a worker without \
                 one, or --no-spawn to start workers by hand",
            ));
        }
        let (min, max) = (settings.min_workers, settings.max_workers);
        if let (Some(min), Some(max)) = (min, max)
            && min > max
        {
            return Err(Failure::usage(format!(
                "min_workers ({min}) is more than max_workers ({max})"
            )));
        }
        Ok(if self.no_spawn { Fleet::none() } else { Fleet::new(self.places(), settings) })
    }

    fn places(&self) -> Vec<WorkerSpec> {
        let gpu =
            |gpu: &u32| WorkerSpec { worker: Name::gpu_worker(*gpu), kind: WorkerKind::Gpu(*gpu) };
        let cpu = || WorkerSpec { worker: Name::cpu_worker(&host_name()), kind: WorkerKind::Cpu };
        self.gpu_list().iter().map(gpu).chain(self.cpu.then(cpu)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_a_list_of_numbers_each_once() {
        assert_eq!(parse_gpus("0, 1,2"), Ok(Gpus(vec![0, 1, 2])));
        assert_eq!(parse_gpus(""), Ok(Gpus::default()));
        assert!(parse_gpus("0,0").unwrap_err().contains("twice"));
        assert!(parse_gpus("a").unwrap_err().contains("--gpus 0,1,2"));
    }

    #[test]
    fn a_brain_with_nothing_to_start_says_what_to_do() {
        let args = |words: &[&str]| Args::parse_from([&["brain"], words].concat());
        let settings = Settings::default();
        assert!(args(&[]).fleet(&settings).unwrap_err().text.contains("--no-spawn"));
        assert!(args(&["--gpus", ""]).fleet(&settings).is_err());
        for fits in [&["--no-spawn"][..], &["--cpu"], &["--gpus", "3"], &["--gpus=", "--cpu"]] {
            assert!(args(fits).fleet(&settings).is_ok(), "{fits:?}");
        }
        let mut crossed = settings;
        (crossed.min_workers, crossed.max_workers) = (Some(3), Some(2));
        assert!(args(&["--gpus", "1"]).fleet(&crossed).is_err());
    }
}

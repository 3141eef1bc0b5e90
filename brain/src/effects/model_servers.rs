//! Which model server each worker is told of that the brain starts.

use queue::cli::Failure;
use queue::cli::servers::ServerArgs;
use shared::settings::{BasePort, Origin, Settings};

use crate::core::words::worker_spec::WorkerKind;

/// The servers of the workers to be started.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    named: ServerArgs,
    base: BasePort,
    /// Nobody has said that there are any: so none need be there.
    assumed: bool,
    /// Which places have one.
    beside: Beside,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Gpus,
    /// There are no GPUs.
    TheCpu,
}

impl Servers {
    /// What the command line and the settings come to, checked as each worker will. The worker
    /// without a GPU has one where it is the only one, and one was named.
    pub(crate) fn new(
        named: &ServerArgs,
        settings: &Settings,
        gpus: &[u32],
    ) -> Result<Self, Failure> {
        let assumed =
            !named.is_given() && settings.origin("ollama_base_port") == Some(&Origin::Default);
        let base = settings.ollama_base_port;
        let beside = if gpus.is_empty() { Beside::TheCpu } else { Beside::Gpus };
        let servers = Self { named: named.clone(), base, assumed, beside };
        named.server_setup(servers.port(None), None)?;
        if let Some(gpu) =
            gpus.iter().find(|gpu| base != BasePort::Off && base.of(Some(**gpu)).is_none())
        {
            let base = base.of(None).unwrap_or_default();
            let text =
                format!("there is no port for the server of GPU {gpu}: {base} + {gpu} is too much");
            return Err(Failure::usage(text));
        }
        Ok(servers)
    }

    fn port(&self, gpu: Option<u32>) -> Option<u16> {
        let has_port = !self.named.is_given() || self.named.is_managed();
        self.base.of(gpu).filter(|_| has_port)
    }

    /// What stands on the command line of the worker at a place.
    pub(crate) fn words(&self, place: WorkerKind) -> Vec<String> {
        let gpu = match (place, self.beside) {
            (WorkerKind::Gpu(gpu), _) => Some(gpu),
            (WorkerKind::Cpu, Beside::TheCpu) if self.named.is_given() => None,
            (WorkerKind::Cpu, Beside::Gpus | Beside::TheCpu) => return Vec::new(),
        };
        let mut words = self.named.words();
        if let Some(port) = self.port(gpu) {
            words.push(format!("--ollama-port={port}"));
            words.extend(self.assumed.then(|| "--server-optional".to_owned()));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;
    use shared::settings::Flags;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        servers: ServerArgs,
    }

    fn servers(words: &[&str], toml: &str, gpus: &[u32]) -> Result<Servers, String> {
        let line = Line::try_parse_from([&["brain"], words].concat()).unwrap();
        let settings = Settings::read(Path::new("t"), toml, |_| None, &Flags::new()).unwrap();
        Servers::new(&line.servers, &settings, gpus).map_err(|failure| failure.text)
    }

    fn words(given: &[&str], toml: &str, gpus: &[u32]) -> [Vec<String>; 2] {
        let servers = servers(given, toml, gpus).unwrap();
        [servers.words(WorkerKind::Gpu(2)), servers.words(WorkerKind::Cpu)]
    }

    #[test]
    fn each_gpu_has_an_ollama_at_its_own_port_perhaps() {
        let none: Vec<String> = Vec::new();
        let [gpu, cpu] = words(&[], "", &[0, 2]);
        assert_eq!(gpu, ["--ollama-port=11438", "--server-optional"]);
        assert_eq!(cpu, none);
        let [gpu, _] = words(&[], "ollama_base_port = 9000", &[0, 2]);
        assert_eq!(gpu, ["--ollama-port=9002"], "somebody has said so");
        assert_eq!(words(&[], "ollama_base_port = \"off\"", &[0, 2]), [none.clone(), none]);
        let much = servers(&[], "ollama_base_port = 65535", &[0, 1]).unwrap_err();
        assert!(much.contains("GPU 1") && much.contains("65535"), "{much}");
    }

    #[test]
    fn one_address_is_for_all_and_a_server_of_its_own_has_its_own_port() {
        let url = ["--openai-url", "http://box:8000"];
        assert_eq!(words(&url, "", &[2])[0], ["--openai-url=http://box:8000"]);
        let own = ["--managed", "llama-server -ngl 99", "--model-file", "m=/m.gguf"];
        let passed = ["--managed=llama-server -ngl 99", "--model-file=m=/m.gguf"];
        let [gpu, cpu] = words(&own, "", &[2]);
        assert_eq!(gpu, [&passed[..], &["--ollama-port=11438"]].concat());
        assert_eq!(cpu, Vec::<String>::new());
        // Where there are no GPUs the one without has it.
        let [_, cpu] = words(&own, "", &[]);
        assert_eq!(cpu, [&passed[..], &["--ollama-port=11436"]].concat());
        assert_eq!(words(&own, "ollama_base_port = \"off\"", &[2])[0], passed);
    }

    #[test]
    fn what_no_worker_would_take_is_refused_at_once() {
        for (words, told) in [
            (&["--openai-url", "https://box"][..], "https is not supported"),
            (&["--managed", "llama-server"], "needs a --model-file"),
        ] {
            assert!(servers(words, "", &[0]).unwrap_err().contains(told));
        }
    }
}

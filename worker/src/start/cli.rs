//! The worker's command line, and what it comes to.

use clap::Parser;
use queue::cli::servers::{ServerArgs, ServerSetup};
use queue::cli::{Common, Failure};
use queue::dir::presence::lease::host_name;
use shared::name::Name;
use shared::task::Class;

use crate::models::Expected;

/// Claims tasks from the pool and runs their jobs: one worker per GPU
#[derive(Parser, Debug)]
#[command(name = "worker", version, max_term_width = 100)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// Which GPU it has, as nvidia-smi numbers them
    #[arg(long, value_name = "N", conflicts_with = "cpu")]
    gpu: Option<u32>,
    /// It has no GPU and takes cpu tasks
    #[arg(long)]
    cpu: bool,
    /// Its name [default: worker-N for GPU N, else cpu-HOST]
    #[arg(long)]
    name: Option<Name>,
    /// The classes it takes, most wanted first [default: what it can]
    #[arg(long, value_delimiter = ',', value_name = "CLASS,…")]
    classes: Vec<Class>,
    /// How many tasks may use the GPU, or ask the model server, at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    slots: u32,
    /// How many cpu tasks may run at once [default: 1 beside a GPU, else as many as cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=4096))]
    cpu_slots: Option<u32>,
    /// The port of its Ollama server on this machine, or of the server that --managed starts; jobs
    /// get it as OLLAMA_HOST
    #[arg(long, value_name = "PORT", visible_alias = "server-port",
          conflicts_with_all = ["ollama_url", "openai_url"])]
    ollama_port: Option<u16>,
    /// As long as nothing has ever answered at --ollama-port, that is no cause for a warning, and
    /// jobs get no OLLAMA_HOST
    #[arg(long, requires = "ollama_port", conflicts_with = "managed")]
    server_optional: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// What the words came to.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Words that all programs take.
    pub common: Common,
    /// What `--name` says, else `worker-N` for GPU N, else `cpu-HOST`.
    pub name: Name,
    /// The index of its GPU; `None` with `--cpu`.
    pub gpu: Option<u32>,
    /// The classes it takes, most wanted first.
    pub classes: Vec<Class>,
    /// Tasks on the GPU at once.
    pub gpu_slots: u32,
    /// Cpu tasks at once.
    pub cpu_slots: u32,
    /// Its model server; without one it takes no llm tasks.
    pub server_setup: Option<ServerSetup>,
    /// Whether that is there.
    pub expected: Expected,
}

/// What such a worker can take, most wanted first.
fn can_take(gpu: Option<u32>, server_setup: Option<&ServerSetup>) -> &'static [Class] {
    match (gpu, server_setup) {
        (Some(_), Some(_)) => &[Class::Resource, Class::Script, Class::Cpu, Class::Llm],
        (Some(_), None) => &[Class::Script, Class::Cpu],
        (None, Some(_)) => &[Class::Resource, Class::Cpu, Class::Llm],
        (None, None) => &[Class::Cpu],
    }
}

impl Args {
    /// What the words come to.
    pub fn plan(self) -> Result<Plan, Failure> {
        if self.gpu.is_none() && !self.cpu {
            return Err(Failure::usage("give --gpu N, or --cpu for a worker without a GPU"));
        }
        let name = match (self.name, self.gpu) {
            (Some(name), _) => name,
            (None, Some(gpu)) => Name::gpu_worker(gpu),
            (None, None) => Name::cpu_worker(&host_name()),
        };
        let server_setup = self.server.server_setup(self.ollama_port, self.gpu)?;
        let expected = if self.server_optional { Expected::Perhaps } else { Expected::Surely };
        let can = can_take(self.gpu, server_setup.as_ref());
        if let Some(class) = self.classes.iter().find(|class| !can.contains(class)) {
            let takes: Vec<_> = can.iter().map(|class| class.as_str()).collect();
            let text = format!("--classes {class}: this worker can take {}", takes.join(", "));
            return Err(Failure::usage(text));
        }
        let classes = if self.classes.is_empty() { can.to_vec() } else { self.classes };
        let cores =
            std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
        let cpu_slots = self.cpu_slots.unwrap_or(if self.gpu.is_some() { 1 } else { cores });
        let gpu_slots = if self.gpu.is_some() || server_setup.is_some() { self.slots } else { 0 };
        let (common, gpu) = (self.common, self.gpu);
        Ok(Plan { common, name, gpu, classes, gpu_slots, cpu_slots, server_setup, expected })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use queue::cli::servers::OwnServer;
    use shared::address::Address;

    fn plan(line: &str) -> Result<Plan, String> {
        let words = std::iter::once("worker").chain(line.split_whitespace());
        let args = Args::try_parse_from(words).map_err(|err| err.to_string())?;
        args.plan().map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_gpu_worker_has_one_slot_on_the_gpu_and_one_beside_it() {
        let plan = plan("--gpu 1 --ollama-port 11437").unwrap();
        assert_eq!(plan.name.as_str(), "worker-1");
        assert_eq!((plan.gpu_slots, plan.cpu_slots), (1, 1));
    }

    #[test]
    fn a_worker_with_a_model_server_takes_what_needs_one() {
        let ollama = plan("--gpu 1 --ollama-port 11437").unwrap();
        let server_setup = ollama.server_setup.unwrap();
        assert_eq!(server_setup, ServerSetup::Ollama(Address::local(11437)));
        let (host, port) = (Some("127.0.0.1:11437".to_owned()), Some(11437));
        assert_eq!((server_setup.ollama_host(), server_setup.ollama_port()), (host, port));
        assert_eq!(ollama.classes, [Class::Resource, Class::Script, Class::Cpu, Class::Llm]);
        let openai = plan("--cpu --openai-url http://box:8000/v1 --slots 4").unwrap();
        assert_eq!(openai.classes, [Class::Resource, Class::Cpu, Class::Llm]);
        assert_eq!((openai.gpu_slots, openai.server_setup.unwrap().ollama_host()), (4, None));
        assert_eq!(plan("--gpu 1").unwrap().classes, [Class::Script, Class::Cpu]);
        assert!(plan("--gpu 1 --classes llm").unwrap_err().contains("can take script, cpu"));
        assert!(plan("--gpu 1 --ollama-url https://x").unwrap_err().contains("--ollama-url"));
        let two = "--gpu 1 --ollama-port 1 --openai-url http://x";
        assert!(plan(two).unwrap_err().contains("cannot be used with"));
    }

    #[test]
    fn a_server_of_its_own_is_an_ollama_or_a_llama_server_with_files() {
        let own = |line: &str| match plan(line).map(|plan| plan.server_setup) {
            Ok(Some(ServerSetup::Own(own))) => Ok(own),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        };
        let OwnServer { words, port, files } = own("--gpu 1 --managed ollama").unwrap();
        assert_eq!((words, port, files), (vec!["ollama".to_owned()], 11437, None));
        let llama = "--gpu 0 --server-port 9000 --model-file /m/tiny.gguf --model-file big=/m/b";
        let words = ["worker"].into_iter().chain(llama.split(' '));
        let words = words.chain(["--managed", "/opt/llama-server -ngl 99"]);
        let args = Args::try_parse_from(words).unwrap();
        let Some(ServerSetup::Own(own_llama)) = args.plan().unwrap().server_setup else { panic!() };
        assert_eq!((own_llama.port, own_llama.words.len()), (9000, 3));
        let names: Vec<_> = own_llama.files.unwrap().into_keys().collect();
        assert_eq!(names, ["big", "tiny"]);
        assert!(own("--gpu 0 --managed llama-server").unwrap_err().contains("--model-file"));
        let both = "--gpu 0 --managed ollama --openai-url http://x";
        assert!(own(both).unwrap_err().contains("cannot be used with"));
    }

    #[test]
    fn a_cpu_worker_takes_cpu_tasks_only() {
        let cpu = plan("--cpu --cpu-slots 3").unwrap();
        assert_eq!((cpu.gpu_slots, cpu.cpu_slots), (0, 3));
        assert!(cpu.name.as_str().starts_with("cpu-"));
        assert!(plan("--cpu --classes script").unwrap_err().contains("can take cpu"));
    }

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        assert!(plan("").unwrap_err().contains("--gpu N"));
        assert!(plan("--gpu 1 --cpu").unwrap_err().contains("--cpu"));
        assert!(plan("--gpu 1 --name ../x").unwrap_err().contains("not a usable name"));
    }
}

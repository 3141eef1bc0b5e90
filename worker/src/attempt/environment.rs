//! The environment of a job: a short allow-list of the worker's own, the task's, and the pool's.

use std::ffi::OsString;

use queue::dir::Pool;
use queue::dir::claim::one::Claim;
use shared::name::Name;
use shared::task::Class;

/// What of the worker's environment jobs get: these, and what starts like those.
const NAMES: &[&str] =
    &["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH"];
const PREFIXES: &[&str] = &[
    "LC_",
    "XDG_",
    "CUDA_",
    "NVIDIA_",
    "NCCL_",
    "ROCM_",
    "ROCR_",
    "HIP_",
    "HSA_",
    "HF_",
    "HUGGINGFACE_",
    "OLLAMA_",
];

/// What the worker tells every job about itself.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The pool, whose root is `BRAINSTEM_POOL`.
    pub pool: Pool,
    /// Its name: `BRAINSTEM_WORKER`.
    pub worker: Name,
    /// Its GPU, as CUDA should see it: the identity where known, else the index.
    pub gpu: Option<String>,
    /// What jobs get of its own environment: see [`passed_on`].
    pub own: Vec<(OsString, OsString)>,
}

/// What of the worker's environment every job gets. It does not change while the worker lives.
#[must_use]
pub fn passed_on(own: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    own.filter(|(name, _value)| name.to_str().is_some_and(is_allowed)).collect()
}

impl Surroundings {
    /// The whole environment of the job of `claim`, beside an Ollama server at `ollama_host`
    /// (`127.0.0.1:11437`). Later entries win over earlier ones.
    #[must_use]
    pub fn of(&self, claim: &Claim, ollama_host: Option<&str>) -> Vec<(OsString, OsString)> {
        let mut all = self.own.clone();
        let task = claim.task();
        let mut set = |name: &str, value: &str| all.push((name.into(), value.into()));
        set("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
        match (task.class(), &self.gpu) {
            (Class::Script | Class::Llm | Class::Resource, Some(gpu)) => {
                set("CUDA_VISIBLE_DEVICES", gpu);
            }
            // A cpu task beside a GPU task must not take memory from it.
            (Class::Cpu, _) | (_, None) => set("CUDA_VISIBLE_DEVICES", ""),
        }
        if let Some(host) = ollama_host {
            set("OLLAMA_HOST", host);
        }
        for (name, value) in &task.spec.env {
            set(name, value);
        }
        let (name, layout) = (claim.name(), self.pool.layout());
        set("BRAINSTEM_TASK_ID", &name.id.to_string());
        set("BRAINSTEM_ATTEMPT", &name.attempt.to_string());
        set("BRAINSTEM_WORKER", self.worker.as_str());
        set("BRAINSTEM_CORRELATION_ID", &task.correlation_id);
        all.push(("BRAINSTEM_POOL".into(), layout.root().into()));
        all.push((
            "BRAINSTEM_PROGRESS_FILE".into(),
            layout.progress_file(name.id, name.attempt).into(),
        ));
        all
    }
}

fn is_allowed(name: &str) -> bool {
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_the_worker_do_not_reach_jobs() {
        for allowed in ["PATH", "HF_HOME", "CUDA_HOME", "XDG_RUNTIME_DIR", "LC_ALL"] {
            assert!(is_allowed(allowed), "{allowed}");
        }
        for kept in ["AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "OPENAI_API_KEY", "BRAINSTEM_POOL"] {
            assert!(!is_allowed(kept), "{kept}");
        }
    }
}

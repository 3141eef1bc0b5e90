//! How an attempt ended, why, and what follows: the words of the ledger.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::Moment;

/// An enum whose variants are words on the wire.
#[macro_export]
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// All words, in the order in which they are declared.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|word| word.as_str() == text).ok_or_else(|| {
                    let all: Vec<_> = Self::ALL.iter().map(|word| word.as_str()).collect();
                    format!("`{}` is none of {}", text.escape_default(), all.join(", "))
                })
            }
        }
    };
}
pub(crate) use words;

words! {
    /// How an attempt ended.
    Outcome {
        /// The job exited with status zero.
        Succeeded = "succeeded",
        /// It did not; `cause` says how.
        Failed = "failed",
        /// A person, a dependency or an expired approval ended it for good.
        Cancelled = "cancelled",
        /// Given back without a verdict: not ready (75), or the worker had to stop.
        Returned = "returned",
    }
}

words! {
    /// Why an attempt did not succeed.
    Cause {
        /// The job exited with another status than zero.
        ExitCode = "exit_code",
        /// A signal that we did not send ended the job.
        Signal = "signal",
        /// The job outlived its time limit and we ended it.
        Timeout = "timeout",
        /// The job made no progress for its stall limit and we ended it.
        Stalled = "stalled",
        /// Memory ran out: the kernel ended the job for that, or the model server says so of the GPU's
        /// or the machine's.
        Oom = "oom",
        /// The worker died while it held the task.
        WorkerDied = "worker_died",
        /// The model server says that the GPU failed, as in `CUDA error`.
        GpuError = "gpu_error",
        /// The model server failed.
        ServerError = "server_error",
        /// The model is not there.
        ModelMissing = "model_missing",
        /// The model server wants a key, or another one.
        Unauthorized = "unauthorized",
        /// The job could not be started.
        SpawnFailed = "spawn_failed",
        /// A person cancelled it.
        Cancelled = "cancelled",
        /// A task it depends on did not end as needed.
        DependencyFailed = "dependency_failed",
        /// Nobody approved it in time.
        ApprovalExpired = "approval_expired",
        /// The disk is full.
        DiskFull = "disk_full",
        /// A brake held it for a day: the error that it was held for did not go away.
        Braked = "braked",
        /// Its file could not be understood; it is in `rejected/`.
        Rejected = "rejected",
    }
}

impl Cause {
    /// Whether another attempt could end differently.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::ExitCode
            | Self::Signal
            | Self::Timeout
            | Self::Stalled
            | Self::Oom
            | Self::WorkerDied
            | Self::GpuError
            | Self::ServerError
            | Self::SpawnFailed
            | Self::DiskFull => true,
            Self::Cancelled
            | Self::DependencyFailed
            | Self::ApprovalExpired
            | Self::ModelMissing
            | Self::Unauthorized
            | Self::Braked
            | Self::Rejected => false,
        }
    }
}

/// Where a task goes when an attempt has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nowhere: the ledger line is all that stays.
    End,
    /// To `failed/`, from where a person may retry it.
    Failed,
    /// Back to `pending/`, at once.
    Pending,
    /// To `delayed/`, until then.
    Delayed(Moment),
    /// To `rejected/`: it is no task that anybody could read.
    Rejected,
}

impl Next {
    /// Whether the task itself ends with this attempt.
    #[must_use]
    pub const fn ends_task(self) -> bool {
        match self {
            Self::End | Self::Failed | Self::Rejected => true,
            Self::Pending | Self::Delayed(_) => false,
        }
    }
}

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("end"),
            Self::Failed => f.write_str("failed"),
            Self::Pending => f.write_str("pending"),
            Self::Delayed(until) => write!(f, "delayed:{until}"),
            Self::Rejected => f.write_str("rejected"),
        }
    }
}

impl std::str::FromStr for Next {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{}` is none of end, failed, pending, delayed:TIME, rejected",
                text.escape_default()
            )
        };
        match text {
            "end" => Ok(Self::End),
            "failed" => Ok(Self::Failed),
            "pending" => Ok(Self::Pending),
            "rejected" => Ok(Self::Rejected),
            _ => {
                let until = text.strip_prefix("delayed:").ok_or_else(bad)?;
                until.parse().map(Self::Delayed).map_err(|_not_a_time| bad())
            }
        }
    }
}

impl Serialize for Next {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Next {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_reads_what_it_writes() {
        let later = Next::Delayed(Moment::from_unix_millis(1_700_000_000_123));
        for next in [Next::End, Next::Failed, Next::Pending, later, Next::Rejected] {
            assert_eq!(next.to_string().parse(), Ok(next));
        }
        assert!("delayed:soon".parse::<Next>().is_err());
    }
}

//! Real model servers and the official clients.

pub(super) mod clients;
pub(super) mod llama;
pub(super) mod ollama;
pub(super) mod router;

//! Model servers, with the stand-in for Ollama and with scripted ones.

pub(super) mod data;
pub(super) mod families;
pub(super) mod flaws;
pub(super) mod gateway;
pub(super) mod key;
pub(super) mod managed;
pub(super) mod models;
pub(super) mod ollama;
pub(super) mod openai;
pub(super) mod own;
pub(super) mod shared_by_two;

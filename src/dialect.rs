//! The kinds of OpenAI-compatible servers, and how they differ: one row each.
//!
//! Pure.

/// The kind of an upstream's server. Found from `owned_by` in `/v1/models`, or set by the owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flavour {
    /// vLLM.
    Vllm,
    /// llama.cpp's `llama-server`.
    LlamaCpp,
    /// SGLang.
    Sglang,
    /// Ollama.
    Ollama,
    /// LM Studio.
    LmStudio,
    /// Unknown. It gets the fields that the five above use or ignore.
    #[default]
    Unknown,
    /// A strict OpenAI API: only standard fields are sent.
    OpenAi,
}

impl Flavour {
    /// Every flavour, with its name in configuration and logs.
    pub const NAMES: [(Flavour, &'static str); 7] = [
        (Flavour::Vllm, "vllm"),
        (Flavour::LlamaCpp, "llama.cpp"),
        (Flavour::Sglang, "sglang"),
        (Flavour::Ollama, "ollama"),
        (Flavour::LmStudio, "lmstudio"),
        (Flavour::Unknown, "unknown"),
        (Flavour::OpenAi, "openai"),
    ];

    /// The flavour's name in configuration and logs.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(flavour, _)| *flavour == self).map_or("unknown", |(_, name)| name)
    }

    /// The flavour with this name.
    pub fn from_name(name: &str) -> Option<Flavour> {
        Self::NAMES.iter().find(|(_, n)| *n == name).map(|(flavour, _)| *flavour)
    }

    /// The flavour that has this `owned_by` in its `/v1/models` entries.
    pub fn from_owned_by(owned_by: &str) -> Flavour {
        match owned_by {
            "vllm" => Flavour::Vllm,
            "llamacpp" => Flavour::LlamaCpp,
            "sglang" => Flavour::Sglang,
            "library" => Flavour::Ollama,
            "organization_owner" | "organization-owner" => Flavour::LmStudio,
            "openai" | "system" | "openai-internal" => Flavour::OpenAi,
            _ => Flavour::Unknown,
        }
    }
}

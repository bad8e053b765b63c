//! The form of a model's calls by its name, for advice on a server whose model has shown none.

use super::families::CallFamily;

impl CallFamily {
    /// The form in which a model writes its calls, by a part of its name. The first part that fits decides. Qwen3 and Qwen2 write
    /// JSON, Qwen3-Coder and all Qwen from 3.5 on write XML; a bare `qwen3` is taken for one of these.
    pub fn of_model(model: &str) -> Option<&'static CallFamily> {
        const FORMS: [(&str, &str); 22] = [
            ("qwen3-coder", "qwen3_coder"),
            ("qwen3-", "hermes"),
            ("qwen2", "hermes"),
            ("qwq", "hermes"),
            ("qwen", "qwen3_coder"),
            ("hermes", "hermes"),
            ("mistral", "mistral"),
            ("devstral", "mistral"),
            ("magistral", "mistral"),
            ("gpt-oss", "harmony"),
            ("glm", "glm"),
            ("kimi-k2", "kimi_k2"),
            ("minimax-m2", "minimax_m2"),
            ("seed-oss", "seed_oss"),
            ("nemotron-3", "qwen3_coder"),
            ("llama-4", "llama4_pythonic"),
            ("llama-3", "llama3_json"),
            ("deepseek-v4", "deepseek_v4"),
            ("deepseek-v3.2", "deepseek_v32"),
            ("deepseek-v3.1", "deepseek_v31"),
            ("deepseek", "deepseek_v3"),
            ("lfm2", "lfm2"),
        ];
        let model = model.to_ascii_lowercase();
        let (_, family) = FORMS.iter().find(|(part, _)| model.contains(part))?;
        CallFamily::named(family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_has_a_form_of_the_table() {
        for (model, expected) in [
            ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3_coder"),
            ("Qwen/Qwen3-8B", "hermes"),
            ("Qwen/QwQ-32B", "hermes"),
            ("Qwen/Qwen3.6-35B-A3B", "qwen3_coder"),
            ("mistralai/Devstral-Small", "mistral"),
            ("openai/gpt-oss-20b", "harmony"),
            ("zai-org/GLM-4.6", "glm"),
            ("moonshotai/Kimi-K2", "kimi_k2"),
            ("MiniMaxAI/MiniMax-M2", "minimax_m2"),
            ("seed-oss-36b", "seed_oss"),
            ("nemotron-3-nano", "qwen3_coder"),
            ("Llama-4-Scout", "llama4_pythonic"),
            ("Llama-3.1-8B", "llama3_json"),
            ("DeepSeek-V4", "deepseek_v4"),
            ("DeepSeek-V3.2", "deepseek_v32"),
            ("DeepSeek-V3.1", "deepseek_v31"),
            ("DeepSeek-R1", "deepseek_v3"),
            ("LFM2-8B", "lfm2"),
        ] {
            assert_eq!(CallFamily::of_model(model).map(|family| family.name), Some(expected), "{model}");
        }
        assert!(CallFamily::of_model("phi-4").is_none());
    }
}

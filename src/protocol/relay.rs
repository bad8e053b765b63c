//! The paths of OpenAI's protocol that are passed on to upstreams byte for byte.
//!
//! | path | body | answer |
//! |---|---|---|
//! | `/v1/chat/completions`, `/v1/completions`, `/v1/responses` | JSON | JSON or events |
//! | `/v1/embeddings`, `/v1/rerank` | JSON | JSON |
//! | `/v1/audio/…` | JSON or a form | anything |

use memchr::memmem;

/// The paths below `/v1`, except for those below `/audio/`.
const PATHS: [&str; 5] = ["/chat/completions", "/completions", "/responses", "/embeddings", "/rerank"];

/// The words by which servers say that they have no such path: FastAPI (vLLM, SGLang), llama.cpp, Ollama, LM Studio.
const NO_SUCH_PATH: [&str; 5] =
    ["\"Not Found\"", "File Not Found", "page not found", "Unexpected endpoint", "Method Not Allowed"];

/// The part of an answer that may say that there is no such path, in bytes.
const REFUSAL_SIZE_MAX: usize = 1024;

/// A path that is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayedPath<'p>(&'p str);

impl<'p> RelayedPath<'p> {
    /// The path, if it is one of them.
    pub fn find(path: &'p str) -> Option<Self> {
        let below = path.strip_prefix("/v1")?;
        let is_audio = below.strip_prefix("/audio/").is_some_and(|name| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'-' | b'_'))
        });
        (is_audio || PATHS.contains(&below)).then_some(RelayedPath(below))
    }

    /// The path below an upstream's base URL, which ends in `/v1`.
    pub fn below_base(self) -> &'p str {
        self.0
    }

    /// True if a body may be a form.
    pub fn takes_forms(self) -> bool {
        self.0.starts_with("/audio/")
    }

    /// True if the answers are what a model says in a conversation.
    pub fn gives_words(self) -> bool {
        matches!(self.0, "/chat/completions" | "/completions" | "/responses")
    }

    /// True for `/v1/responses`, where an answer's id may be named by the next request.
    pub fn is_responses(self) -> bool {
        self.0 == "/responses"
    }

    /// The mark of a piece of content in a stream, and how many of them show that content has begun. Some servers send events
    /// without content at once, and then work on the prompt.
    pub fn content_mark(self) -> (&'static [u8], usize) {
        match self.0 {
            // The first delta has only the role.
            "/chat/completions" => (b"\"delta\"", 2),
            "/responses" => (b".delta\"", 1),
            _ => (b"data:", 1),
        }
    }
}

/// True if the beginning of an answer of this status says that the server does not have the path. The same statuses also
/// say that a model or a response does not exist.
pub fn says_no_such_path(status: u16, beginning: &[u8]) -> bool {
    let beginning = beginning.get(..REFUSAL_SIZE_MAX).unwrap_or(beginning).trim_ascii();
    // LM Studio says so with status 200.
    matches!(status, 200 | 404 | 405)
        && (status != 200 || beginning.starts_with(b"{\"error\""))
        && (NO_SUCH_PATH.iter().any(|words| memmem::find(beginning, words.as_bytes()).is_some())
            // A page of HTML comes from a proxy or another program, and not from a server of models.
            || (status != 200 && (beginning.is_empty() || beginning.starts_with(b"<"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_these_paths_are_passed_on() {
        for path in [
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/responses",
            "/v1/embeddings",
            "/v1/rerank",
            "/v1/audio/transcriptions",
            "/v1/audio/speech",
        ] {
            assert_eq!(RelayedPath::find(path).map(RelayedPath::below_base), path.strip_prefix("/v1"));
        }
        for path in [
            "/chat/completions",
            "/v1",
            "/v1/",
            "/v1/audio/",
            "/v1/audio/a/b",
            "/v1/audio/..",
            "/v1/audio/A",
            "/v1/audio/%2e",
            "/v1/responses/resp_1",
            "/v1/images/generations",
            "/v1/chat",
            "/v1/embeddings/x",
        ] {
            assert_eq!(RelayedPath::find(path), None, "{path}");
        }
    }

    #[test]
    fn a_missing_path_is_not_a_missing_model() {
        for (status, body, expected) in [
            (404, r#"{"detail":"Not Found"}"#, true),
            (404, r#"{"detail": "Not Found"}"#, true),
            (404, r#"{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}"#, true),
            (404, "404 page not found", true),
            (404, "", true),
            (404, "\n<html><h1>404</h1></html>", true),
            (405, r#"{"detail":"Method Not Allowed"}"#, true),
            (200, r#"{"error":"Unexpected endpoint or method. (POST /v1/rerank)"}"#, true),
            (404, r#"{"error":{"message":"The model `x` does not exist.","code":404}}"#, false),
            (404, r#"{"error":{"message":"Response with id 'resp_1' not found."}}"#, false),
            (200, r#"{"choices":[{"message":{"content":"page not found"}}]}"#, false),
            (200, "", false),
            (500, "File Not Found", false),
        ] {
            assert_eq!(says_no_such_path(status, body.as_bytes()), expected, "{status} {body}");
        }
    }
}

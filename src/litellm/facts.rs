//! Settings of an entry that count for its whole upstream, and the kind of its model.
//!
//! LiteLLM has a time limit and a window for each entry, sparkgap for each upstream. An upstream gets a value only if all
//! of its entries allow it.

use super::KeyVerdict::{Ignored, Mapped, Unsupported};
use super::report::{Report, join};
use super::sources::{NamedAddresses, present, report_unset};
use super::upstream::ImportedUpstream;
use super::yaml::Node;

/// The key of the window.
const WINDOW: &str = "max_input_tokens";

/// The keys of the time limit. Clients stream, and LiteLLM takes the first one for streams.
const TIMEOUTS: [&str; 2] = ["stream_timeout", "timeout"];

/// The longest time limit in seconds; a longer one limits nothing here.
const TIMEOUT_MAX: f64 = 86_400.0;

/// The kind of a model, by `model_info.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ModelKind {
    #[default]
    Chat,
    Embeddings,
    Rerank,
    Audio,
    /// A kind that has no path here.
    Other,
}

/// The settings of one entry that count for its whole upstream.
#[derive(Clone, Debug)]
pub(super) struct EntryFacts {
    upstream: usize,
    path: String,
    window: Option<u64>,
    timeout: Option<u64>,
}

/// Reads the kind of an entry's model, and reports it.
pub(super) fn read_kind(path: &str, item: &Node, report: &mut Report) -> ModelKind {
    let mode = item.get("model_info").and_then(|info| info.get("mode")).and_then(Node::text);
    let Some(mode) = mode else { return ModelKind::Chat };
    let (kind, verdict, note) = match mode {
        "chat" | "completion" | "responses" => {
            (ModelKind::Chat, Mapped, "a chat model, like every entry without a mode")
        }
        "embedding" => (
            ModelKind::Embeddings,
            Mapped,
            "no chat model: meant for clients of /v1/embeddings; requests for chat are not kept from it",
        ),
        "rerank" => (
            ModelKind::Rerank,
            Mapped,
            "no chat model: meant for clients of /v1/rerank; requests for chat are not kept from it",
        ),
        "audio_transcription" | "audio_speech" => (
            ModelKind::Audio,
            Mapped,
            "no chat model: meant for clients of /v1/audio/…; requests for chat are not kept from it",
        ),
        _ => (
            ModelKind::Other,
            Unsupported,
            "sparkgap has no path for models of this kind; clients ask the server itself",
        ),
    };
    report.mark(format!("{path}.model_info.mode"), verdict, note);
    kind
}

impl EntryFacts {
    /// Reads the facts of the entry at `path`, which is served by the upstream of this index.
    pub(super) fn read(
        path: &str,
        item: &Node,
        upstream: usize,
        sources: NamedAddresses<'_>,
        report: &mut Report,
    ) -> EntryFacts {
        let mut of = |section: &str, key: &str| {
            let node = item.get(section)?.get(key)?;
            report_unset(node, &join(&join(path, section), key), sources, report);
            let (text, _) = present(node, sources, key).ok()??;
            text.trim().parse::<f64>().ok().filter(|number| *number > 0.0)
        };
        let timeout = TIMEOUTS.iter().find_map(|key| of("litellm_params", key));
        let timeout = timeout.filter(|seconds| *seconds <= TIMEOUT_MAX).map(|seconds| whole(seconds.ceil()));
        let window = of("model_info", WINDOW).filter(|tokens| (1024.0..1e9).contains(tokens)).map(whole);
        EntryFacts { upstream, path: path.to_owned(), window, timeout }
    }
}

/// Gives each upstream the window and the time limit on which its entries agree, and reports the others. Returns the
/// lines of the report that name an upstream: the path, the upstream's index, a note.
pub(super) fn agree(
    facts: &[EntryFacts],
    upstreams: &mut [ImportedUpstream],
    report: &mut Report,
) -> Vec<(String, usize, String)> {
    let mut named = Vec::new();
    for (i, upstream) in upstreams.iter_mut().enumerate() {
        let of = || facts.iter().filter(move |facts| facts.upstream == i);
        let window = of().next().and_then(|first| first.window);
        upstream.window = window.filter(|_| of().all(|facts| facts.window == window));
        let all_limited = of().all(|facts| facts.timeout.is_some());
        upstream.timeout = of().filter_map(|facts| facts.timeout).max().filter(|_| all_limited);
    }
    for facts in facts {
        let Some(upstream) = upstreams.get(facts.upstream) else { continue };
        let window = join(&join(&facts.path, "model_info"), WINDOW);
        match (facts.window, upstream.window) {
            (Some(_), Some(_)) => named.push((window, facts.upstream, ": its window".to_owned())),
            (Some(_), None) => report.mark(window, Ignored, NO_COMMON_WINDOW),
            (None, _) => {}
        }
        for key in TIMEOUTS.iter().map(|key| join(&join(&facts.path, "litellm_params"), key)) {
            match (facts.timeout, upstream.timeout) {
                (Some(_), Some(seconds)) => {
                    let note = format!(
                        ": the longest silence is {seconds} s; a prefill that takes longer fails, as in LiteLLM"
                    );
                    named.push((key, facts.upstream, note));
                }
                (Some(_), None) => report.mark(key, Unsupported, NO_COMMON_TIMEOUT),
                (None, _) => {}
            }
        }
    }
    named
}

const NO_COMMON_WINDOW: &str =
    "the entries of this server do not agree on one, so the server is asked; set window on the upstream";

const NO_COMMON_TIMEOUT: &str = "another entry of this server has no time limit; set timeout on the upstream";

/// A positive number that is below 2^53 and has no fraction that matters.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the caller has checked the range"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

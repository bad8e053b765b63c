//! The clusters that may stand behind an upstream, and the headers by which each learns whose request it gets and how urgent
//! it is.
//!
//! A cluster puts many engines behind one address and chooses among them itself, so it needs what sparkgap knows: the
//! conversation (for the engine that has its prefix), the client (for fairness) and the lane (for priority). Every upstream
//! gets Claude Code's own session headers; these are the names that only one cluster reads.
//!
//! | cluster | conversation | client | urgency | source |
//! |---|---|---|---|---|
//! | llm-d | its session headers | `x-llm-d-inference-fairness-id` | `x-llm-d-inference-objective` | <https://llm-d.ai/docs/0.8/api-reference/epp-http-headers>; the names with `x-gateway-` are those of the Gateway API Inference Extension and of older releases |
//! | SMG | `x-smg-routing-key` | `x-smg-tenant-id` | `x-smg-priority` | `docs/reference/priority-scheduler.md` of lightseekorg/smg, `sticky-sessions.md` of smg-project/smg-docs |
//! | Dynamo | `x-dynamo-session-id`, `x-dynamo-parent-session-id` | - | `x-dynamo-request-priority` | <https://docs.nvidia.com/dynamo/dev/agents/identify-agent-sessions> and `components/router/priority-scheduling` there |
//! | production-stack | `x-user-id` | - | - | the `sessionKey` of its tutorials, an option of the router (`--session-key`) |
//!
//! Dynamo's `x-tenant-id` is not sent: it separates the caches of clients, so that they would not share a system prompt.
//!
//! Pure.

use crate::lane::Lane;

/// The kind of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterKind {
    /// llm-d, or another Gateway API Inference Extension.
    LlmD,
    /// The Shepherd Model Gateway, earlier the router of SGLang.
    Smg,
    /// NVIDIA Dynamo.
    Dynamo,
    /// The production stack of vLLM.
    ProductionStack,
}

/// The facts about a request that its cluster can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterHints {
    /// Names the conversation; the same in all its turns.
    pub conversation: String,
    /// Names the conversation that has started this one, if it is the work of a sub-agent.
    pub parent: Option<String>,
    /// Names the client without telling who it is.
    pub client: String,
    /// How urgent the request is.
    pub lane: Lane,
}

impl ClusterKind {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    /// The names in the configuration.
    pub const NAMES: [(ClusterKind, &'static str); 4] = [
        (ClusterKind::LlmD, "llm-d"),
        (ClusterKind::Smg, "smg"),
        (ClusterKind::Dynamo, "dynamo"),
        (ClusterKind::ProductionStack, "production-stack"),
    ];

    /// The names and values of the headers for a request.
    pub fn headers(self, hints: &ClusterHints) -> Vec<(&'static str, &str)> {
        let ClusterHints { conversation, parent, client, lane } = hints;
        let of =
            |names: [&'static str; 3]| names.get(usize::from(lane.number())).copied().unwrap_or_default();
        match self {
            ClusterKind::LlmD => {
                // The name of an InferenceObjective of the cluster. An unknown one counts as no objective.
                let objective = of(["sparkgap-person", "sparkgap-agent", "sparkgap-background"]);
                vec![
                    ("x-llm-d-inference-fairness-id", client),
                    ("x-gateway-inference-fairness-id", client),
                    ("x-llm-d-inference-objective", objective),
                    ("x-gateway-inference-objective", objective),
                ]
            }
            ClusterKind::Smg => vec![
                ("x-smg-routing-key", conversation),
                ("x-smg-tenant-id", client),
                ("x-smg-priority", of(["interactive", "default", "bulk"])),
            ],
            ClusterKind::Dynamo => {
                let mut headers = vec![("x-dynamo-session-id", conversation.as_str())];
                headers.extend(parent.as_deref().map(|parent| ("x-dynamo-parent-session-id", parent)));
                // A higher number goes first.
                headers.push(("x-dynamo-request-priority", of(["2", "1", "0"])));
                headers
            }
            ClusterKind::ProductionStack => vec![("x-user-id", conversation)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cluster_gets_the_headers_that_it_reads() {
        let parent = Some("s".to_string());
        let hints =
            ClusterHints { conversation: "s:a".into(), parent, client: "c".into(), lane: Lane::Agent };
        let headers = |kind: ClusterKind, hints: &ClusterHints| {
            let lines = kind.headers(hints).into_iter().map(|(name, value)| format!("{name}={value}"));
            lines.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            headers(ClusterKind::LlmD, &hints),
            "x-llm-d-inference-fairness-id=c x-gateway-inference-fairness-id=c \
             x-llm-d-inference-objective=sparkgap-agent x-gateway-inference-objective=sparkgap-agent"
        );
        assert_eq!(
            headers(ClusterKind::Smg, &hints),
            "x-smg-routing-key=s:a x-smg-tenant-id=c x-smg-priority=default"
        );
        assert_eq!(
            headers(ClusterKind::Dynamo, &hints),
            "x-dynamo-session-id=s:a x-dynamo-parent-session-id=s x-dynamo-request-priority=1"
        );
        assert_eq!(headers(ClusterKind::ProductionStack, &hints), "x-user-id=s:a");
        let main = ClusterHints { conversation: "s".into(), parent: None, lane: Lane::Person, ..hints };
        assert_eq!(headers(ClusterKind::Dynamo, &main), "x-dynamo-session-id=s x-dynamo-request-priority=2");
    }
}

//! The life of a request, from its path to its line in the log. The only module that knows every stage.
//!
//! | file | duty |
//! |---|---|
//! | `service` | the handler: finds the resource of a request, and answers at once if no upstream is needed |
//! | `state` | [`Proxy`]: what all requests share |
//! | `resource` | paths and methods |
//! | `stop` | why a request ends without an upstream's message |
//! | `entry` | admission: who sends a request, for which resource, and whether it is admitted |
//! | `prepare` | a client's bytes to a chat completion: hooks, checks, route, translation |
//! | `learned` | the facts about an upstream's models that answers and refusals revealed, and how long they are trusted |
//! | `live` | the live page: its keys and sessions |
//! | `messages` | `POST /v1/messages`, stage by stage |
//! | `attempt` | asks one upstream; repairs and repeats the request where that helps |
//! | `body` | reads the complete body of a request |
//! | `budget` | limits the memory that all requests take together |
//! | `client_slot` | the place of a request among those of its client, if its key has limits |
//! | `count` | `POST /v1/messages/count_tokens` |
//! | `exchange` | the client's side of one request: sends events or a whole message, and signs of life in silence |
//! | `footprint` | estimates the memory of one request before it is allocated |
//! | `filter` | `on_event` and `on_tool_call` between translation and client |
//! | `identity` | the client and the conversation of a request, for the choice of an upstream and for the upstream's headers |
//! | `turn` | the chain of a request's body, from its translation to the verdict on its prefix |
//! | `recorded` | the facts that the recording of a request needs |
//! | `recorded_way` | the way in which an answer came that was not translated, for its recording |
//! | `replay` | [`replay_offline`]: translates the answer of a recorded request again |
//! | `replay_pass` | the same for an answer that was not translated |
//! | `golden_case` | [`golden_case()`]: a recorded request as a case of the tests |
//! | `keep` | the row of a request for the state folder |
//! | `routing` | the upstreams that can answer a request, and those that have failed with it |
//! | `outgoing` | the last check of a request by `never_to`, just before it is sent |
//! | `passing` | a request to an upstream that speaks the Messages API itself, and its answer, byte for byte |
//! | `preview` | the request that would be sent, for `sparkgap hook` |
//! | `search` | web searches, and requests that are one |
//! | `rounds` | the searches that a model asks for, and the next round of its answer |
//! | `rescued` | the warning about tool calls that a server did not recognize |
//! | `relayed` | the paths of OpenAI's protocol, passed on byte for byte |
//! | `passage` | the client's side of a request that is passed on |
//! | `homes` | the upstreams that made the latest responses |
//! | `relay` | the upstream's bytes through decoder and translation to the client |

mod attempt;
mod body;
mod budget;
mod client_slot;
mod count;
mod entry;
mod exchange;
mod filter;
mod first_event;
mod footprint;
mod golden_case;
mod homes;
mod identity;
mod keep;
mod live;
mod messages;
mod options;
mod outgoing;
mod passage;
mod passing;
mod prepare;
mod preview;
mod recorded;
mod recorded_way;
mod relay;
mod relayed;
mod replay;
mod replay_pass;
mod rescued;
mod resource;
mod rounds;
mod routing;
mod search;
mod service;
mod state;
mod stop;
mod turn;

pub use golden_case::{GoldenCase, golden_case};
pub use options::{ClientPatience, ProxyOptions};
pub use preview::{Preview, preview, preview_with_request};
pub use recorded_way::RecordedWay;
pub use replay::{replay_answer, replay_offline};
pub use state::Proxy;

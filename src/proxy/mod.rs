//! The life of a request, from its path to its line in the log. The only module that knows every stage.
//!
//! | file | duty |
//! |---|---|
//! | `service` | which path is what, and what is answered at once |
//! | `state` | [`Proxy`]: what all requests share |
//! | `resource` | paths and methods |
//! | `stop` | the ends of a request without a message |
//! | `entry` | who asks for what, and whether that is let in |
//! | `prepare` | a client's bytes to a chat completion: hooks, checks, route, translation |
//! | `learned` | what answers and refusals told of an upstream's models, and for how long that is believed |
//! | `messages` | `POST /v1/messages`, stage by stage |
//! | `attempt` | one upstream asked: mended and repeated where that helps |
//! | `body` | a request's body, whole |
//! | `budget` | how much memory the bodies of requests may take, all together |
//! | `count` | `POST /v1/messages/count_tokens` |
//! | `exchange` | the client's side of one request: events or a whole message out, signs of life in silence |
//! | `footprint` | how much memory one request takes, told before it is taken |
//! | `filter` | `on_event` and `on_tool_call` between translation and client |
//! | `preview` | what would be sent, for `sparkgap hook` |
//! | `relay` | the upstream's bytes through decoder and translation to the client |

mod attempt;
mod body;
mod budget;
mod count;
mod entry;
mod exchange;
mod filter;
mod footprint;
mod messages;
mod options;
mod prepare;
mod preview;
mod relay;
mod resource;
mod service;
mod state;
mod stop;

pub use options::{ClientPatience, ProxyOptions};
pub use preview::{Preview, preview};
pub use state::Proxy;

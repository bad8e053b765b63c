//! The translation: Messages request -> chat completion, chunks -> Messages events.
//!
//! Pure: bytes and trees in, trees and events out. Ids come in as arguments; there is no clock, no log, no socket.
//!
//! | module | from | to |
//! |---|---|---|
//! | `request` | every field of a Messages request | the chat completion's body, and the [`Plan`] for reading its answer |
//! | `plan` | [`Target`] and [`Plan`]: what both halves share | |
//! | `blocks` | content blocks of other kinds | text |
//! | `history` | `system` and `messages` | `messages` |
//! | `extras` | members beyond the API's, and addresses of images | those that the owner lets clients pass on |
//! | `late` | tools that come in the course of a conversation | text where they are first referred to |
//! | `tools` | `tools`, `tool_choice` | `tools`, `tool_choice` |
//! | `stream` | chunks | events, one block at a time |
//! | `arguments` | fragments of a tool call's arguments | JSON that is valid at every moment |
//! | `stop` | text | text without its stop sequence |
//! | `signature` | reasoning | a thinking block's signature, and back |
//! | `tool_id` | an upstream's id of a call | one that the API allows and the client does not know yet, and back |
//! | `finish` | finish reason, counts | stop reason, usage |
//! | `message` | events | one whole Message |
//! | `round` | a chat completion whose model searches the web, and the results | the next one |
//! | `repair` | a chat completion that a server refuses | one that it accepts |
//! | `failure` | an upstream's failure | the client's error |
//! | `estimate` | text | tokens, roughly |
//! | `estimator` | estimates, and the counts of earlier answers | tokens at one model |
//! | `footprint` | a request's parts | the memory that their translation takes, roughly |
//! | `image` | an image's first bytes | its size |

pub mod arguments;
mod blocks;
pub mod estimate;
mod estimator;
mod extras;
mod failure;
mod finish;
mod footprint;
mod handover;
mod history;
mod image;
mod late;
mod marks;
mod message;
mod plan;
mod repair;
mod request;
mod round;
mod signature;
mod stop;
mod stream;
mod tool_id;
mod tools;

pub use estimator::{ANSWERS_MAX, CountedPrompt, Estimator};
pub use failure::failure_error;
pub use finish::overflow_error;
pub use footprint::parts_size;
pub use handover::{HandedOver, ThinkingMaker, hand_over, is_thinking_refusal, thinking_id};
pub use history::IMAGE_OMITTED;
pub use message::MessageFold;
pub use plan::{Asked, Lessons, Plan, Target, ToldWindow};
pub use repair::{make_repair, make_repairs, possible_repairs};
pub use request::{ChatRequest, chat_request, likely_room, retarget};
pub use round::extend_chat;
pub use signature::{carried_reasoning, signature_carrying, signature_with};
pub use stream::{Emit, MessageStream, Progress, RoundText, SearchCall, SearchRound};
pub use tool_id::TakenIds;

//! How the kinds of upstreams are asked.
//!
//! | file | duty |
//! |---|---|
//! | `messages` | an upstream that speaks the Messages API itself |
//! | `relay` | the paths of OpenAI's protocol that are passed on |
//! | `tokenize` | the number of tokens of a prompt |

pub mod messages;
pub mod relay;
pub mod tokenize;

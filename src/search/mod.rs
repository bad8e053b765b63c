//! Web searches of clients: finds the question of a request, asks a SearXNG, and builds the answer, without any model.
//!
//! | file | duty |
//! |---|---|
//! | `side_request` | the search that a request consists of |
//! | `searxng` | asks a SearXNG, within limits |
//! | `page` | its page of results as hits |
//! | `answer` | the answer that a client gets |
//!
//! It does not know hooks, nor the client of a search.

mod answer;
mod page;
mod searxng;
mod side_request;

pub use answer::{QUERY_LENGTH_MAX, check_query, search_message, shown_query};
pub use page::{clean_hits, read_hits};
pub use searxng::{SEARCH_TIME, ask_searxng, try_searxng};
pub use side_request::SideSearch;

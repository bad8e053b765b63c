//! Any bytes as JSON: a document that is accepted is JSON to another parser too, and is the same when it is written and
//! read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sparkgap::json::{self, Document};

fuzz_target!(|bytes: &[u8]| {
    let mut own = bytes.to_vec();
    let read = json::parse(&mut own);
    let mut document = Document::from(bytes.to_vec());
    assert_eq!(document.parse().as_ref().ok(), read.as_ref().ok(), "another tree in an arena");
    let Ok(value) = read else { return };
    let text = value.to_json();
    let mut again = text.clone().into_bytes();
    let second = json::parse(&mut again).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(second.to_json(), text, "written and read again");
    let mut judge = serde_json::Deserializer::from_str(&text);
    judge.disable_recursion_limit();
    let judged: Result<Value, _> = serde::Deserialize::deserialize(&mut judge);
    assert!(judged.is_ok(), "{judged:?}: {text}");
});

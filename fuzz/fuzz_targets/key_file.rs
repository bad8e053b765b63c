//! A file of clients' keys: any text is read or refused, the same twice.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sparkgap::access::Keys;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    // A carriage return alone ends a line, too.
    let has_key = |line: &str| !line.trim().is_empty() && !line.trim().starts_with('#');
    let read = Keys::read(&text);
    assert_eq!(format!("{read:?}"), format!("{:?}", Keys::read(&text)));
    // Without a key every client would be admitted.
    assert!(read.is_err() || text.split(['\n', '\r']).any(has_key), "{text:?}");
});

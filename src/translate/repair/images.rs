//! Images that become lines of text. The message around an image stays, so that the conversation goes on.

use crate::hash::Fnv;
use crate::json::{Object, Value};

use super::super::history::IMAGE_OMITTED;

/// The line for an image that the server cannot decode.
const UNREADABLE: &str = "[image omitted: the server could not decode it]";
/// The line for an image that is older than the newest ones that the server takes.
const TOO_MANY: &str = "[image omitted: the server takes only a few images, and newer ones follow]";

/// The images that stay.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kept<'k> {
    None,
    /// At most so many of the newest ones.
    Newest(usize),
    /// PNG and JPEG, which every decoder reads. An image that is given by its address stays, too.
    Plain,
    /// All but those whose addresses have these hashes.
    AllBut(&'k [u64]),
}

/// The address of the image in a part of a content; an image without one has an empty address.
fn address<'p>(part: &'p Value<'_>) -> Option<&'p str> {
    let image = part.get("image_url")?;
    Some(image.get("url").unwrap_or(image).as_str().unwrap_or_default())
}

fn hash(address: &str) -> u64 {
    Fnv::EMPTY.push(address.as_bytes()).mixed()
}

fn is_plain(address: &str) -> bool {
    let kinds = ["data:image/png", "data:image/jpeg", "data:image/jpg"];
    !address.starts_with("data:") || kinds.iter().any(|kind| address.starts_with(kind))
}

fn parts<'b>(message: &'b Value<'_>) -> &'b [Value<'b>] {
    message.get("content").and_then(Value::as_array).unwrap_or_default()
}

/// The hashes of the images' addresses, the newest image first.
pub(super) fn newest_first(body: &Value<'_>) -> impl Iterator<Item = u64> {
    let messages = body.get("messages").and_then(Value::as_array).unwrap_or_default();
    messages.iter().rev().flat_map(|message| parts(message).iter().rev().filter_map(address)).map(hash)
}

/// The number of images at the beginning that make room for at most `max` newer ones. They go in blocks of half of `max`:
/// each image that goes changes the prompt before the newest message, and costs the server its prefix cache from there
/// on. Images of the newest message with images stay, unless the limit is too small for them.
fn count_of_old(messages: &[Value<'_>], max: usize) -> usize {
    let count_in = |message: &Value<'_>| parts(message).iter().filter(|part| address(part).is_some()).count();
    let count: usize = messages.iter().map(count_in).sum();
    let newest = messages.iter().rev().map(count_in).find(|count| *count > 0).unwrap_or(0);
    let least = count.saturating_sub(max);
    let in_blocks = least.next_multiple_of((max / 2).max(1));
    in_blocks.min(count - newest).max(least)
}

/// Replaces the images that do not stay. Otherwise one image would end the conversation, since it stays in the history.
/// Returns false if all of them stay.
pub(super) fn omit(body: &mut Object<'_>, kept: Kept<'_>) -> bool {
    let Some(messages) = super::messages(body) else { return false };
    let old = if let Kept::Newest(max) = kept { count_of_old(messages, max) } else { 0 };
    let mut seen = 0;
    let mut is_changed = false;
    for message in messages {
        if !parts(message).iter().any(|part| address(part).is_some()) {
            continue;
        }
        let content = message.as_object_mut().and_then(|message| message.get_mut("content"));
        let Some(content) = content else { continue };
        let Value::Array(items) = content else { continue };
        for part in items.to_mut() {
            let Some(address) = address(part) else { continue };
            seen += 1;
            let line = match kept {
                Kept::None => Some(IMAGE_OMITTED),
                Kept::Newest(_) => (seen <= old).then_some(TOO_MANY),
                Kept::Plain => (!is_plain(address)).then_some(UNREADABLE),
                Kept::AllBut(broken) => broken.contains(&hash(address)).then_some(UNREADABLE),
            };
            if let Some(line) = line {
                *part = Value::object([("type", "text".into()), ("text", line.into())]);
                is_changed = true;
            }
        }
        super::order::join_texts(content);
    }
    is_changed
}

#[cfg(test)]
mod tests {
    use crate::openai::Repair;

    use super::super::tests::repaired;
    use super::*;

    fn image(kind: &str, data: &str) -> String {
        format!(r#"{{"type":"image_url","image_url":{{"url":"data:image/{kind};base64,{data}"}}}}"#)
    }

    fn body(parts: &[&[String]]) -> String {
        let message = |parts: &&[String]| format!(r#"{{"role":"user","content":[{}]}}"#, parts.join(","));
        format!(r#"{{"messages":[{}]}}"#, parts.iter().map(message).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn a_message_of_texts_alone_is_one_string() {
        let text = r#"{"type":"text","text":"look"}"#.to_string();
        let (told, is_changed) = repaired(&Repair::NoImages, &body(&[&[text, image("png", "A")]]));
        assert!(is_changed);
        assert_eq!(
            told,
            format!(r#"{{"messages":[{{"role":"user","content":"look\n\n{IMAGE_OMITTED}"}}]}}"#)
        );
        assert!(!repaired(&Repair::NoImages, r#"{"messages":[{"role":"user","content":"hi"}]}"#).1);
    }

    #[test]
    fn the_newest_stay() {
        let images = body(&[&[image("png", "A"), image("png", "B")], &[image("png", "C")]]);
        for (max, left) in [(0, ""), (1, "C"), (2, "BC"), (3, "ABC")] {
            let (told, is_changed) = repaired(&Repair::ImagesMax(max), &images);
            let stays = |data: &&str| told.contains(&format!("base64,{data}"));
            assert_eq!(["A", "B", "C"].iter().copied().filter(|data| stays(data)).collect::<String>(), left);
            assert_eq!(is_changed, max < 3);
        }
    }

    #[test]
    fn old_images_go_in_blocks_so_that_the_prefix_holds() {
        let parts = |count: usize| (0..count).map(|n| image("png", &format!("I{n}."))).collect::<Vec<_>>();
        let kept = |told: &str, count: usize| -> Vec<usize> {
            (0..count).filter(|n| told.contains(&format!("base64,I{n}."))).collect()
        };
        let (mut before, mut changes) = (Vec::new(), 0);
        for count in 1..=40 {
            let images = parts(count);
            let messages: Vec<&[String]> = images.chunks(1).collect();
            let now = kept(&repaired(&Repair::ImagesMax(8), &body(&messages)).0, count);
            assert!(now.len() <= 8 && now.len() > count.min(8) / 2, "{count}: {now:?}");
            assert!(
                now.last() == Some(&(count - 1))
                    && now.iter().rev().zip((0..count).rev()).all(|(a, b)| *a == b)
            );
            changes += usize::from(!now.starts_with(&before));
            before = now;
        }
        // Without blocks each of the 32 turns beyond the limit would change the prefix.
        assert_eq!(changes, 8);
        // As many images of the newest message stay as the server takes.
        let nine = parts(10);
        let (told, _) = repaired(&Repair::ImagesMax(8), &body(&[&nine[..1], &nine[1..]]));
        assert_eq!(kept(&told, 10), (2..10).collect::<Vec<_>>());
    }

    #[test]
    fn only_the_unreadable_go() {
        let images =
            body(&[&[image("png", "A"), image("webp", "B")], &[image("gif", "C"), image("jpeg", "D")]]);
        let (told, _) = repaired(&Repair::PlainImages, &images);
        assert_eq!((told.matches("base64").count(), told.matches(UNREADABLE).count()), (2, 2), "{told}");
        let mut bytes = images.clone().into_bytes();
        let hashes: Vec<u64> = newest_first(&crate::json::parse(&mut bytes).unwrap()).collect();
        let (told, _) = repaired(&Repair::BrokenImages(vec![hashes[0]]), &images);
        assert!(told.contains("base64,C") && !told.contains("base64,D"), "{told}");
        assert!(!repaired(&Repair::BrokenImages(vec![1]), &images).1);
        assert_eq!(repaired(&Repair::BrokenImages(hashes), &images).0.matches(UNREADABLE).count(), 4);
    }
}

//! The figures of a server about its own work, read from the page that it has for them: Prometheus text (vLLM, SGLang), or
//! llama.cpp's list of slots. They include the work for other clients than us.
//!
//! Pure.

use crate::json;

/// The largest page that is read, in bytes. Those of vLLM have 100 KB; older llama.cpp lists the prompts of its slots.
pub(super) const PAGE_SIZE_MAX: usize = 4 * 1024 * 1024;

/// The largest value that counts: whole numbers are exact up to here.
const VALUE_MAX: f64 = 9e15;

/// The figures of a server that the choice among servers uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// The requests that it works on.
    pub running: u32,
    /// The requests that wait in it.
    pub waiting: u32,
    /// The share of its cache that is in use, 0 to 1, if it says so.
    pub cache_use: Option<f64>,
}

/// One page of a server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadPage {
    /// The figures for the choice.
    pub load: Load,
    /// The tokens that it has read and written. It changes while the server works; it may also fall.
    pub tokens: u64,
    /// The requests that it can work on at a time, if it says so.
    pub slots: Option<u32>,
}

/// The meaning of a metric.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Metric {
    Running,
    Waiting,
    CacheUse,
    Tokens,
}

/// The metrics of vLLM and SGLang that are read. A server has one line for each engine of a metric.
const METRICS: [(&str, Metric); 10] = [
    ("vllm:num_requests_running", Metric::Running),
    ("vllm:num_requests_waiting", Metric::Waiting),
    ("vllm:kv_cache_usage_perc", Metric::CacheUse),
    // Older versions of vLLM; some have both names.
    ("vllm:gpu_cache_usage_perc", Metric::CacheUse),
    ("vllm:prompt_tokens_total", Metric::Tokens),
    ("vllm:generation_tokens_total", Metric::Tokens),
    ("sglang:num_running_reqs", Metric::Running),
    ("sglang:num_queue_reqs", Metric::Waiting),
    ("sglang:token_usage", Metric::CacheUse),
    ("sglang:generation_tokens_total", Metric::Tokens),
];

/// Reads Prometheus text. The numbers of several engines are added up; of their caches the fullest one counts. `None`: the
/// page does not tell how many requests run.
pub(super) fn read_metrics(page: &[u8]) -> Option<LoadPage> {
    let (mut running, mut waiting, mut tokens) = (None::<f64>, 0.0, 0.0);
    let mut cache_use = None::<f64>;
    for line in page.split(|byte| *byte == b'\n') {
        let Some((metric, value)) = read_line(line) else { continue };
        match metric {
            Metric::Running => running = Some(running.unwrap_or(0.0) + value),
            Metric::Waiting => waiting += value,
            Metric::CacheUse => cache_use = Some(cache_use.unwrap_or(0.0).max(value.min(1.0))),
            Metric::Tokens => tokens += value,
        }
    }
    let load = Load { running: small(running?), waiting: small(waiting), cache_use };
    Some(LoadPage { load, tokens: whole(tokens), slots: None })
}

/// The metric and the value of a line: `name{labels} value timestamp`, of which labels and timestamp may be missing.
fn read_line(line: &[u8]) -> Option<(Metric, f64)> {
    let name_end = line.iter().position(|byte| b"{ \t".contains(byte))?;
    let (name, rest) = line.split_at_checked(name_end)?;
    let metric = METRICS.iter().find(|(known, _)| known.as_bytes() == name)?.1;
    // A label may hold any character; behind the labels only numbers follow.
    let values = rest.rsplit(|byte| *byte == b'}').next()?;
    let value = std::str::from_utf8(values).ok()?.split_ascii_whitespace().next()?;
    let value: f64 = value.parse().ok()?;
    (value >= 0.0).then(|| (metric, value.min(VALUE_MAX)))
}

/// Reads llama.cpp's `/slots`. `None`: it is not such a list.
pub(super) fn read_slots(page: &mut [u8]) -> Option<LoadPage> {
    let parsed = json::parse(page).ok()?;
    let slots = parsed.as_array()?;
    let (mut running, mut tokens) = (0_u32, 0_u64);
    for slot in slots {
        running += u32::from(slot.get("is_processing")?.as_bool()?);
        let next = slot.get("next_token");
        // An object in older versions, a list with one object in newer ones.
        let next = next.and_then(json::Value::as_array).and_then(<[_]>::first).or(next);
        let counts = [next.and_then(|next| next.get("n_decoded")), slot.get("n_prompt_tokens_processed")];
        let counts = counts.into_iter().flatten().filter_map(json::Value::as_u64);
        tokens = counts.fold(tokens, u64::wrapping_add);
    }
    let load = Load { running, waiting: 0, cache_use: None };
    Some(LoadPage { load, tokens, slots: u32::try_from(slots.len()).ok().filter(|slots| *slots > 0) })
}

/// A number of tokens.
fn whole(value: f64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and a larger value becomes the largest one"
    )]
    {
        value as u64
    }
}

/// A number of requests.
fn small(value: f64) -> u32 {
    u32::try_from(whole(value)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(running: u32, waiting: u32, cache_use: Option<f64>) -> Load {
        Load { running, waiting, cache_use }
    }

    #[test]
    fn the_metrics_of_vllm_are_added_up_over_engines() {
        let page = "# HELP vllm:num_requests_running Number of requests in model execution batches.\n\
            # TYPE vllm:num_requests_running gauge\n\
            vllm:num_requests_running{engine=\"0\",model_name=\"a } 99\"} 3.0\n\
            vllm:num_requests_running{engine=\"1\",model_name=\"a\"} 2.0 1790347303000\n\
            vllm:num_requests_waiting{engine=\"0\"} 1.0\n\
            vllm:num_requests_waiting_by_reason{engine=\"0\",reason=\"capacity\"} 7.0\n\
            vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\n\
            vllm:kv_cache_usage_perc{engine=\"1\"} 0.75\n\
            vllm:prompt_tokens_total{engine=\"0\"} 1.2e+06\n\
            vllm:prompt_tokens_created{engine=\"0\"} 1.79e+09\n\
            vllm:generation_tokens_total{engine=\"1\"} 34.0\n";
        let read = read_metrics(page.as_bytes()).unwrap();
        assert_eq!(read, LoadPage { load: load(5, 1, Some(0.75)), tokens: 1_200_034, slots: None });
    }

    #[test]
    fn older_names_and_those_of_sglang() {
        let vllm = b"vllm:num_requests_running 4\nvllm:gpu_cache_usage_perc 0.5\n";
        assert_eq!(read_metrics(vllm).unwrap().load, load(4, 0, Some(0.5)));
        let sglang =
            b"sglang:num_running_reqs{tp_rank=\"0\"} 8.0\nsglang:num_queue_reqs{tp_rank=\"0\"} 4.0\n\
            sglang:token_usage{tp_rank=\"0\"} 0.52\nsglang:num_queue_reqs_total{tp_rank=\"0\"} 999\n\
            sglang:generation_tokens_total{} 12\n";
        let read = read_metrics(sglang).unwrap();
        assert_eq!((read.load, read.tokens), (load(8, 4, Some(0.52)), 12));
    }

    #[test]
    fn a_page_without_the_figures_tells_nothing() {
        for page in [
            "",
            "<html>404</html>",
            "go_goroutines 12",
            "vllm:num_requests_running",
            "vllm:num_requests_running NaN",
            "vllm:num_requests_running -1",
            "vllm:num_requests_running{a=\"b\" 5",
            "vllm:num_requests_runningx 5",
            "vllm:num_requests_waiting 5",
        ] {
            assert_eq!(read_metrics(page.as_bytes()), None, "{page}");
        }
        let huge = read_metrics(b"vllm:num_requests_running +Inf\nvllm:kv_cache_usage_perc 55\n").unwrap();
        assert_eq!(huge.load, load(u32::MAX, 0, Some(1.0)));
        assert_eq!(read_metrics(b"\xff\xfe{\nvllm:num_requests_running 1").unwrap().load.running, 1);
    }

    #[test]
    fn the_slots_of_llama_cpp() {
        let slots = |text: &str| read_slots(&mut text.as_bytes().to_vec());
        let list = r#"[
            {"id":0,"n_ctx":65536,"is_processing":true,"n_prompt_tokens_processed":4000,"next_token":[{"n_decoded":250}]},
            {"id":1,"n_ctx":65536,"is_processing":true,"next_token":{"n_decoded":3}},
            {"id":2,"n_ctx":65536,"is_processing":false}]"#;
        let expected = LoadPage { load: load(2, 0, None), tokens: 4253, slots: Some(3) };
        assert_eq!(slots(list), Some(expected));
        assert_eq!(slots("[]").unwrap().slots, None);
        for other in ["", "{}", "[1]", "[{}]", r#"{"error":{"code":501}}"#, r#"[{"is_processing":1}]"#] {
            assert_eq!(slots(other), None, "{other}");
        }
    }
}

//! The measured programs: each is a process of its own in front of the same upstream. Reads its use of resources.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::load;
use super::upstream::Script;
use crate::workloads::{self, Request};

/// A program that may stand between client and upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Direct,
    Haproxy,
    Sparkgap,
    /// Another build of sparkgap, to show the effect of a change.
    Before,
    LiteLlm,
    ClaudeCodeRouter,
}

/// The other build's file, if one is to be measured.
pub(crate) static BEFORE: OnceLock<PathBuf> = OnceLock::new();

/// The kernel's unit of CPU time, in seconds.
const TICK: f64 = 0.01;

/// The longest wait for a start. LiteLLM needs nine seconds.
const START_PATIENCE: Duration = Duration::from_secs(90);

impl Kind {
    pub(crate) const ALL: [Kind; 6] =
        [Kind::Direct, Kind::Haproxy, Kind::Before, Kind::Sparkgap, Kind::LiteLlm, Kind::ClaudeCodeRouter];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Direct => "direct",
            Kind::Haproxy => "haproxy (relay)",
            Kind::Sparkgap => "**sparkgap**",
            Kind::Before => "sparkgap before",
            Kind::LiteLlm => "LiteLLM",
            Kind::ClaudeCodeRouter => "claude-code-router",
        }
    }

    /// The command, if it is installed.
    fn command(self) -> Option<PathBuf> {
        match self {
            Kind::Direct => Some(PathBuf::new()),
            Kind::Haproxy => find("haproxy"),
            Kind::Sparkgap => Some(env!("CARGO_BIN_EXE_sparkgap").into()),
            Kind::Before => BEFORE.get().cloned(),
            Kind::LiteLlm => find("litellm"),
            Kind::ClaudeCodeRouter => find("ccr"),
        }
    }

    pub(crate) fn is_installed(self) -> bool {
        self.command().is_some()
    }

    /// True if it offers the Messages API. The others pass requests on unchanged.
    fn translates(self) -> bool {
        !matches!(self, Kind::Direct | Kind::Haproxy)
    }

    /// True if it can serve thousands of streams, and start many times.
    pub(crate) fn is_light(self) -> bool {
        !matches!(self, Kind::LiteLlm | Kind::ClaudeCodeRouter)
    }

    /// A request of about `size` bytes, head included, in the API of this kind.
    pub(crate) fn request(self, size: usize, stream: bool, script: Script) -> Vec<u8> {
        let request = Request { size, stream, max_tokens: script.max_tokens() };
        self.with_body(&request.body(), stream)
    }

    /// A request with a given Messages body.
    pub(crate) fn with_body(self, messages: &[u8], stream: bool) -> Vec<u8> {
        let (path, body) = if self.translates() {
            ("/v1/messages", messages.to_vec())
        } else {
            ("/v1/chat/completions", workloads::chat_body(messages, stream))
        };
        [workloads::head(path, body.len()).into_bytes(), body].concat()
    }
}

/// Finds a program where `benches/install-peers` puts it, otherwise on the path.
fn find(name: &str) -> Option<PathBuf> {
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers");
    let own = [peers.join("litellm/bin"), peers.join("ccr/node_modules/.bin")];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = [PathBuf::from("/usr/sbin")];
    own.into_iter()
        .chain(std::env::split_paths(&path))
        .chain(system)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// A running program.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    child: Option<Child>,
    folder: PathBuf,
}

impl Target {
    /// Starts the program and waits for its first answer. Returns the time that this took, too.
    pub(crate) fn start(kind: Kind, upstream: SocketAddr) -> (Target, Duration) {
        let request = kind.request(1000, false, Script::Short);
        if kind == Kind::Direct {
            return (Target { address: upstream, child: None, folder: PathBuf::new() }, Duration::ZERO);
        }
        let address = free_address();
        let folder = std::env::temp_dir().join(format!("sparkgap-bench-{}", address.port()));
        fs::create_dir_all(&folder).unwrap();
        let mut command = prepare(kind, &folder, address, upstream);
        let log = fs::File::create(folder.join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let began = Instant::now();
        let child = command.spawn().unwrap();
        let mut target = Target { address, child: Some(child), folder };
        while !load::answers(address, &request) {
            let ended = target.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(
                ended.is_none() && began.elapsed() < START_PATIENCE,
                "{kind:?} does not start: {}",
                target.log()
            );
            std::thread::sleep(Duration::from_micros(100));
        }
        (target, began.elapsed())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Its process and all processes that it started.
    fn processes(&self) -> Vec<u32> {
        let Some(child) = &self.child else { return Vec::new() };
        let mut found = vec![child.id()];
        let mut at = 0;
        while let Some(process) = found.get(at) {
            let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
            let children: Vec<u32> = tasks
                .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
                .flat_map(|text| text.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
                .collect();
            found.extend(children);
            at += 1;
        }
        found
    }

    /// The sum of a line of `/proc/PID/status` over its processes.
    fn status(&self, name: &str) -> f64 {
        let value = |process: &u32| -> Option<f64> {
            let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
        };
        self.processes().iter().filter_map(value).sum()
    }

    /// Resident memory in KB.
    pub(crate) fn rss(&self) -> f64 {
        self.status("VmRSS")
    }

    pub(crate) fn threads(&self) -> f64 {
        self.status("Threads")
    }

    /// CPU seconds so far.
    pub(crate) fn cpu(&self) -> f64 {
        self.processes().iter().map(|process| cpu_of(&process.to_string(), 2)).sum()
    }
}

/// The user and system time of a process, in seconds; with `fields` = 4 including that of its ended children.
pub(crate) fn cpu_of(process: &str, fields: usize) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = rest.split_whitespace().skip(11).take(fields).filter_map(|n| n.parse::<f64>().ok());
    ticks.sum::<f64>() * TICK
}

/// The seconds so far in which cores of the machine were busy, summed over the cores.
pub(crate) fn machine_cpu() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> =
        text.lines().next().unwrap_or_default().split_whitespace().filter_map(|n| n.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq
    fields.iter().enumerate().filter(|(at, _)| !matches!(at, 3 | 4) && *at < 8).map(|(_, n)| n).sum::<f64>()
        * TICK
}

impl Drop for Target {
    fn drop(&mut self) {
        let processes = self.processes();
        if let Some(child) = &mut self.child {
            _ = child.kill();
            _ = child.wait();
        }
        for process in processes.iter().skip(1) {
            let process = i32::try_from(*process).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(process) = process {
                _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
            }
        }
        if self.child.is_some() {
            _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap()
}

fn prepare(kind: Kind, folder: &Path, address: SocketAddr, upstream: SocketAddr) -> Command {
    let mut command = Command::new(kind.command().unwrap());
    let port = address.port();
    let config = |name: &str, text: String| {
        let file = folder.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        file
    };
    match kind {
        Kind::Direct => {}
        Kind::Sparkgap | Kind::Before => {
            let url = format!("http://{upstream}/v1");
            command.args(["serve", "--listen", &address.to_string(), "--upstream", &url]);
            command.args(["--connections-max", "6000"]);
        }
        Kind::Haproxy => {
            let text = format!(
                "global\n  maxconn 9000\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  option http-no-delay\n  http-reuse always\n  option abortonclose\nlisten bench\n  bind {address}\n  server upstream {upstream}\n"
            );
            command.arg("-f").arg(config("haproxy.cfg", text));
        }
        Kind::LiteLlm => {
            let text = format!(
                "model_list:\n  - model_name: \"*\"\n    litellm_params:\n      model: hosted_vllm/qwen3\n      api_base: http://{upstream}/v1\n      api_key: sk-0\nlitellm_settings:\n  drop_params: true\n  telemetry: false\n"
            );
            command.arg("--config").arg(config("litellm.yaml", text));
            command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--num_workers", "1"]);
            command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").env("LITELLM_LOG", "ERROR");
            // This is the key in `workloads::head`. Without a key it does not start.
            command.env("LITELLM_MASTER_KEY", "sk-0");
        }
        Kind::ClaudeCodeRouter => {
            let text = format!(
                r#"{{"LOG":false,"HOST":"127.0.0.1","PORT":{port},"NON_INTERACTIVE_MODE":true,"Providers":[{{"name":"vllm","api_base_url":"http://{upstream}/v1/chat/completions","api_key":"sk-0","models":["qwen3"]}}],"Router":{{"default":"vllm,qwen3"}}}}"#
            );
            config(".claude-code-router/config.json", text);
            command.arg("start").env("HOME", folder).env("SERVICE_PORT", port.to_string());
        }
    }
    command
}

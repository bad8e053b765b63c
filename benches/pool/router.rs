//! The programs that spread requests over boxes: each is a process of its own, with its configuration.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::physics::server::{MODEL, ModelServer};
use crate::wire;

/// The longest wait for a start. LiteLLM needs nine seconds on a quiet machine.
const START_PATIENCE: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sparkgap,
    Haproxy,
    LiteLlmShuffle,
    LiteLlmLeastBusy,
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] =
        [Kind::Sparkgap, Kind::Haproxy, Kind::LiteLlmShuffle, Kind::LiteLlmLeastBusy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Sparkgap => "sparkgap",
            Kind::Haproxy => "haproxy",
            Kind::LiteLlmShuffle => "litellm-shuffle",
            Kind::LiteLlmLeastBusy => "litellm-least-busy",
        }
    }

    /// True if it offers the Messages API. haproxy passes chat completions on.
    pub(crate) fn translates(self) -> bool {
        self != Kind::Haproxy
    }

    pub(crate) fn is_installed(self) -> bool {
        self.program().is_some()
    }

    fn program(self) -> Option<PathBuf> {
        match self {
            Kind::Sparkgap => Some(env!("CARGO_BIN_EXE_sparkgap").into()),
            Kind::Haproxy => find("haproxy"),
            Kind::LiteLlmShuffle | Kind::LiteLlmLeastBusy => find("litellm"),
        }
    }

    fn command(self, folder: &Path, address: SocketAddr, boxes: &[ModelServer]) -> Command {
        let mut command = Command::new(self.program().unwrap());
        match self {
            Kind::Sparkgap => {
                command.args(["serve", "--listen", &address.to_string()]);
                boxes.iter().for_each(|one| _ = command.args(["--upstream", &one.url()]));
            }
            Kind::Haproxy => {
                let file = folder.join("haproxy.cfg");
                fs::write(&file, haproxy(address, boxes)).unwrap();
                command.arg("-f").arg(file);
            }
            Kind::LiteLlmShuffle | Kind::LiteLlmLeastBusy => {
                let strategy = if self == Kind::LiteLlmShuffle { "simple-shuffle" } else { "least-busy" };
                let file = folder.join("litellm.yaml");
                fs::write(&file, litellm(strategy, boxes)).unwrap();
                command.arg("--config").arg(file).args(["--host", "127.0.0.1", "--num_workers", "1"]);
                command.args(["--port", &address.port().to_string()]);
                command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").env("LITELLM_LOG", "ERROR");
                // Without a key it does not start. It is the key of `wire`.
                command.env("LITELLM_MASTER_KEY", wire::KEY);
            }
        }
        command
    }
}

fn haproxy(address: SocketAddr, boxes: &[ModelServer]) -> String {
    let server = |(at, one): (usize, &ModelServer)| format!("  server box{at} {}\n", one.address());
    let servers: String = boxes.iter().enumerate().map(server).collect();
    format!(
        "global\n  maxconn 2000\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 600s\n  timeout server 600s\n  option http-no-delay\n  option abortonclose\nlisten pool\n  bind {address}\n  balance hdr(x-claude-code-session-id)\n  hash-type consistent\n{servers}"
    )
}

fn litellm(strategy: &str, boxes: &[ModelServer]) -> String {
    let deployment = |one: &ModelServer| {
        format!(
            "  - model_name: {MODEL}\n    litellm_params:\n      model: hosted_vllm/{MODEL}\n      api_base: {}\n      api_key: {}\n",
            one.url(),
            wire::KEY
        )
    };
    let deployments: String = boxes.iter().map(deployment).collect();
    format!(
        "model_list:\n{deployments}router_settings:\n  routing_strategy: {strategy}\nlitellm_settings:\n  drop_params: true\n  telemetry: false\n"
    )
}

/// Finds a program where `benches/install-peers` puts it, otherwise on the path.
fn find(name: &str) -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/litellm/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = PathBuf::from("/usr/sbin");
    let mut folders = [own, system].into_iter().chain(std::env::split_paths(&path));
    folders.find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()))
}

/// A running router.
pub(crate) struct Router {
    pub(crate) address: SocketAddr,
    child: Child,
    folder: PathBuf,
}

impl Router {
    /// Starts it, and waits until it accepts connections.
    pub(crate) fn start(kind: Kind, boxes: &[ModelServer]) -> Router {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
        let folder = std::env::temp_dir().join(format!("sparkgap-pool-{}", address.port()));
        fs::create_dir_all(&folder).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut command = kind.command(&folder, address, boxes);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut router = Router { address, child: command.spawn().unwrap(), folder };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            let has_ended = router.child.try_wait().unwrap().is_some();
            assert!(!has_ended && began.elapsed() < START_PATIENCE, "{kind:?}: {}", router.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        router
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        _ = fs::remove_dir_all(&self.folder);
    }
}

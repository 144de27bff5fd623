//! A bad network between a server and its PostgreSQL: a TCP proxy that delays, stalls or cuts.

use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the network does with bytes.
#[derive(Clone, Copy, Debug)]
pub enum Network {
    Works,
    /// Each piece takes this much longer, either way.
    Slow(Duration),
    /// Nothing passes. A connection that had to do with this stays dead for good, and is never closed: as after a machine
    /// in between has forgotten it.
    Stalls,
    /// This share of the pieces ends their connection in place of arriving, either way.
    Cuts(f64),
    /// This share of the answers of the database ends their connection: it has done what it was asked, and nobody is told.
    CutsAnswers(f64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Question,
    Answer,
}

/// A running proxy; ends with the test's runtime.
pub struct Proxy {
    address: SocketAddr,
    network: watch::Sender<Network>,
}

impl Proxy {
    /// In front of the PostgreSQL of this URL.
    pub async fn start(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (network, watched) = watch::channel(Network::Works);
        let upstream = host(url).to_owned();
        tokio::spawn(async move {
            while let Ok((from_server, _)) = listener.accept().await {
                tokio::spawn(connect(from_server, upstream.clone(), watched.clone()));
            }
        });
        Self { address, network }
    }

    /// The URL of the database through this proxy.
    pub fn url(&self, url: &str) -> String {
        url.replace(host(url), &self.address.to_string())
    }

    pub fn becomes(&self, network: Network) {
        self.network.send_replace(network);
    }
}

fn host(url: &str) -> &str {
    url.rsplit_once('@').and_then(|(_, rest)| rest.split_once('/')).expect("postgres://USER@HOST:PORT/NAME").0
}

async fn connect(asking: TcpStream, upstream: String, network: watch::Receiver<Network>) {
    let Ok(answering) = TcpStream::connect(upstream).await else { return };
    for stream in [&asking, &answering] {
        let _ = stream.set_nodelay(true);
    }
    let ((from_asking, to_asking), (from_answering, to_answering)) = (asking.into_split(), answering.into_split());
    tokio::select! {
        () = pump(Way::Question, from_asking, to_answering, network.clone()) => {}
        () = pump(Way::Answer, from_answering, to_asking, network) => {}
    }
}

/// Passes pieces on until the connection ends, or has to.
async fn pump(way: Way, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, network: watch::Receiver<Network>) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        let now = *network.borrow();
        match now {
            Network::Works => {}
            Network::Slow(delay) => tokio::time::sleep(delay).await,
            Network::Stalls => std::future::pending().await,
            Network::Cuts(share) if rand::rng().random_bool(share) => return,
            Network::CutsAnswers(share) if way == Way::Answer && rand::rng().random_bool(share) => return,
            Network::Cuts(_) | Network::CutsAnswers(_) => {}
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}

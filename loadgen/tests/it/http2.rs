//! Targets that speak HTTP/2, in the clear or over TLS, on ports of their own; and certificates for them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use http::{Request, Response, StatusCode};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// What a target does with an event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Acknowledges it.
    Acknowledge,
    /// Acknowledges it after a while.
    AcknowledgeAfter(Duration),
    /// Resets its stream.
    Reset,
    /// Acknowledges it, and says that it takes no more on this connection.
    GoAway,
    /// Closes the connection at once, with whatever is open on it.
    HangUp,
    /// Writes what is no frame.
    Garbage,
}

/// A target and what it has seen.
pub struct Http2Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// Most events at a time.
    pub concurrent_max: Arc<AtomicUsize>,
    /// Connections taken.
    pub connections: Arc<AtomicUsize>,
}

struct Shared {
    act: Box<dyn Fn(usize) -> Act + Send + Sync>,
    streams_max: u32,
    events: AtomicUsize,
    concurrent: AtomicUsize,
    concurrent_max: Arc<AtomicUsize>,
}

/// Starts one; `act` is given the number of the event, from 1. It allows `streams_max` requests at a time on a connection.
pub fn http2_target(
    tls: Option<ServerConfig>,
    streams_max: u32,
    act: impl Fn(usize) -> Act + Send + Sync + 'static,
) -> Http2Target {
    let (concurrent_max, connections) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let shared = Arc::new(Shared {
        act: Box::new(act),
        streams_max,
        events: AtomicUsize::new(0),
        concurrent: AtomicUsize::new(0),
        concurrent_max: Arc::clone(&concurrent_max),
    });
    let counted = Arc::clone(&connections);
    let address = listen(tls, move |stream, encrypted| {
        counted.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            match encrypted {
                Some(acceptor) => talk(acceptor.accept(stream).await.ok()?, &shared).await,
                None => talk(stream, &shared).await,
            }
        });
    });
    Http2Target { address, concurrent_max, connections }
}

/// A target of HTTP/1.1 over TLS that acknowledges everything.
pub fn https_target(tls: ServerConfig) -> SocketAddr {
    listen(Some(tls), |stream, acceptor| {
        tokio::spawn(async move {
            let mut stream = acceptor?.accept(stream).await.ok()?;
            let mut request = Vec::new();
            loop {
                let mut buffer = [0; 4096];
                let length = stream.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
                request.extend_from_slice(&buffer[..length]);
                let text = String::from_utf8_lossy(&request).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                if body.len() < length.unwrap_or(0) {
                    continue;
                }
                let (status, answer) = answer_to(head.split(' ').nth(1).unwrap_or_default(), 1);
                let head = format!("HTTP/1.1 {} X\r\ncontent-length: {}\r\n\r\n", status.as_u16(), answer.len());
                stream.write_all(&[head.as_bytes(), &answer].concat()).await.ok()?;
                request.clear();
            }
            #[allow(unreachable_code, reason = "says what the task gives")]
            Some(())
        });
    })
}

/// Calls `taken` with each connection, on a thread with a runtime of its own that ends with the test's process.
fn listen(tls: Option<ServerConfig>, taken: impl Fn(TcpStream, Option<TlsAcceptor>) + Send + 'static) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    listener.set_nonblocking(true).expect("a non-blocking listener");
    let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("no delay");
                taken(stream, acceptor.clone());
            }
        });
    });
    address
}

async fn talk(mut io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shared: &Arc<Shared>) -> Option<()> {
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(shared.streams_max);
    let mut connection = builder.handshake(&mut io).await.ok()?;
    while let Some(Ok((request, respond))) = connection.accept().await {
        let number = match request.uri().path() {
            "/api/events" => shared.events.fetch_add(1, Ordering::Relaxed) + 1,
            _ => 0,
        };
        match if number == 0 { Act::Acknowledge } else { (shared.act)(number) } {
            Act::HangUp => return None,
            Act::Garbage => {
                drop((request, respond, connection));
                io.write_all(&[0xff; 4096]).await.ok()?;
                return None;
            }
            Act::Reset => drop((respond, request)),
            act => {
                if act == Act::GoAway {
                    connection.graceful_shutdown();
                }
                let pause = if let Act::AcknowledgeAfter(pause) = act { pause } else { Duration::ZERO };
                tokio::spawn(answer(request, respond, pause, number, Arc::clone(shared)));
            }
        }
    }
    None
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    pause: Duration,
    number: usize,
    shared: Arc<Shared>,
) -> Option<()> {
    let event = usize::from(number > 0);
    let concurrent = shared.concurrent.fetch_add(event, Ordering::Relaxed) + event;
    shared.concurrent_max.fetch_max(concurrent, Ordering::Relaxed);
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    while let Some(data) = body.data().await {
        let _ = body.flow_control().release_capacity(data.ok()?.len());
    }
    tokio::time::sleep(pause).await;
    shared.concurrent.fetch_sub(event, Ordering::Relaxed);
    let (status, answer) = answer_to(&path, number);
    let head = Response::builder().status(status).body(()).expect("a head");
    respond.send_response(head, false).ok()?.send_data(Bytes::from(answer), true).ok()
}

fn answer_to(path: &str, number: usize) -> (StatusCode, Vec<u8>) {
    let id = uuid::Uuid::from_u128(number as u128);
    match path {
        "/api/events" => (StatusCode::ACCEPTED, format!(r#"{{"id":"{id}","durability":"memory"}}"#).into_bytes()),
        "/api/keys/generate" => (StatusCode::CREATED, br#"{"api_key":"k"}"#.to_vec()),
        _ => (StatusCode::NOT_FOUND, b"{}".to_vec()),
    }
}

/// A certificate for 127.0.0.1 that nobody knows: what a server needs, and the file for those who shall trust it.
pub struct Certificate {
    folder: TempDir,
    config: ServerConfig,
}

impl Certificate {
    /// A new one, for a server that chooses among these protocols by ALPN.
    pub fn new(alpn: &[&str]) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions").with_no_client_auth();
        let mut config = builder.with_single_cert(vec![made.cert.der().clone()], key).expect("a server's settings");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), made.cert.pem()).expect("a file");
        Self { folder, config }
    }

    /// For the server.
    pub fn config(&self) -> ServerConfig {
        self.config.clone()
    }

    /// For `--tls-ca`.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }
}

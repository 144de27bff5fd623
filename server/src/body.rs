//! Reading a request's body without ever holding more than its bound, or waiting longer than its time.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use crate::problem::Problem;

/// The whole body, or 413 as soon as it is clear that it is over `bytes_max` (with a Content-Length: before reading any of it),
/// or 408 when it is not whole in time.
pub async fn read(body: &mut Incoming, bytes_max: u64, timeout: Duration) -> Result<Bytes, Problem> {
    let too_large = Problem::TooLarge { field: "body", max: bytes_max, unit: "bytes" };
    if body.size_hint().lower() > bytes_max {
        return Err(too_large);
    }
    let reading = pin!(collect(body, bytes_max, too_large));
    // Nearly every small body is there together with its head: no timer then.
    match poll_once(reading).await {
        Ok(done) => done,
        Err(reading) => tokio::time::timeout(timeout, reading).await.unwrap_or(Err(Problem::TooSlow)),
    }
}

async fn collect(body: &mut Incoming, bytes_max: u64, too_large: Problem) -> Result<Bytes, Problem> {
    // One frame is kept as it came; only a second one makes a copy of both.
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // hyper's reasons are malformed chunks and a connection that broke off; who is still there is told.
        let Ok(data) = frame.map_err(|_| Problem::BadRequest)?.into_data() else { continue };
        if (first.len() + all.len() + data.len()) as u64 > bytes_max {
            return Err(too_large);
        }
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// Polls once: `Ok` when it was ready, else the future back.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Result<F::Output, Pin<&mut F>> {
    let ready = poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await;
    ready.ok_or(future)
}

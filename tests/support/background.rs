//! A server of a test, on a loopback port and in a thread of its own, so that it serves while the test blocks.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;

/// Starts a server. It stops when the second value is dropped.
pub fn serve<F>(server: impl FnOnce(TcpListener) -> F + Send + 'static) -> (SocketAddr, tokio::sync::oneshot::Sender<()>)
where
    F: Future<Output = ()>,
{
    let (address, told) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            address.send(listener.local_addr().unwrap()).unwrap();
            tokio::select! {
                () = server(listener) => {}
                _ = stopped => {}
            }
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
    });
    (told.recv().unwrap(), stop)
}

//! The tests' S3 server as a program, for benchmarks and for trying things by hand: `s3-server DIR [HOST:PORT]` serves the buckets
//! below a directory until it is stopped, and prints the variables by which the AWS SDK finds it.

#![allow(clippy::print_stdout, clippy::unwrap_used, dead_code, missing_docs)]

#[path = "../tests/support/background.rs"]
mod background;
#[path = "../tests/support/s3.rs"]
mod s3;

use std::path::Path;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (directory, address) = match &arguments[..] {
        [directory] => (directory, "127.0.0.1:0"),
        [directory, address] => (directory, &**address),
        _ => {
            println!("s3-server DIR [HOST:PORT]");
            return ExitCode::from(2);
        }
    };
    let directory = Path::new(directory);
    std::fs::create_dir_all(directory.join(s3::BUCKET)).unwrap();
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    println!("export AWS_ENDPOINT_URL_S3=http://{}", listener.local_addr().unwrap());
    println!("export AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={}", s3::ACCESS_KEY, s3::SECRET_KEY);
    println!("export AWS_REGION=eu-west-1 AWS_EC2_METADATA_DISABLED=true");
    println!("# the bucket: s3://{}", s3::BUCKET);
    s3::serve(listener, directory, None, std::sync::Arc::default()).await;
    ExitCode::SUCCESS
}

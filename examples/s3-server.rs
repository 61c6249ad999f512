//! The tests' S3 server as a program, for benchmarks and for trying things by hand: `s3-server DIR [HOST:PORT [MS]]` serves the
//! buckets below a directory until it is stopped, each answer some milliseconds later, and prints the variables by which the AWS SDK
//! finds it.

#![allow(clippy::print_stdout, clippy::unwrap_used, dead_code, missing_docs)]

#[path = "../tests/support/background.rs"]
mod background;
#[path = "../tests/support/s3.rs"]
mod s3;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, more @ ..] = &arguments[..] else { return usage() };
    let (address, delay) = match more {
        [] => ("127.0.0.1:0", Ok(0)),
        [address] => (&**address, Ok(0)),
        [address, delay] => (&**address, delay.parse()),
        _ => return usage(),
    };
    let Ok(delay) = delay else { return usage() };
    let directory = Path::new(directory);
    std::fs::create_dir_all(directory.join(s3::BUCKET)).unwrap();
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    println!("export AWS_ENDPOINT_URL_S3=http://{}", listener.local_addr().unwrap());
    println!("export AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={}", s3::ACCESS_KEY, s3::SECRET_KEY);
    println!("export AWS_REGION=eu-west-1 AWS_EC2_METADATA_DISABLED=true");
    println!("# the bucket: s3://{}", s3::BUCKET);
    s3::serve(listener, directory, Duration::from_millis(delay)).await;
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    println!("s3-server DIR [HOST:PORT [MS]]");
    ExitCode::from(2)
}

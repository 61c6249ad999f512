//! An HTTP server with a few pages and a log of its requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::support::http_fake::{Say, Server, answer, serve};

/// What the server says of a path.
#[derive(Clone, Default)]
pub struct Page {
    pub status: u16,
    content: Vec<u8>,
    pub headers: Vec<(&'static str, String)>,
    /// What it says to HEAD, if not the same.
    pub head: Option<u16>,
    /// Whether each answer is another.
    pub counts: bool,
}

/// A server of a few pages, and what it was asked.
pub struct Pages {
    server: Server,
    pages: Arc<Mutex<HashMap<String, Page>>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// Lives as long as what it serves.
    _runtime: Option<tokio::runtime::Runtime>,
}

impl Pages {
    pub async fn serving() -> Self {
        let (pages, asked) = (Arc::new(Mutex::new(HashMap::<String, Page>::new())), Arc::new(Mutex::new(Vec::new())));
        let (of, log) = (Arc::clone(&pages), Arc::clone(&asked));
        let server = serve(move |request| {
            let path = request.uri().path().to_owned();
            let mut asked = log.lock().unwrap();
            asked.push(format!("{} {path}", request.method()));
            let count = asked.len();
            let page = of.lock().unwrap().get(&path).cloned();
            let is_head = request.method() == "HEAD";
            Box::pin(async move {
                let Some(page) = page else { return Say::Cut };
                let headers: Vec<(&str, &str)> = page.headers.iter().map(|(name, value)| (*name, &**value)).collect();
                let mut content = page.content.clone();
                if page.counts {
                    content.extend(count.to_string().into_bytes());
                }
                let status = page.head.filter(|_| is_head).unwrap_or(page.status);
                Say::This(answer(status, &headers, if is_head { Vec::new() } else { content }))
            })
        })
        .await;
        Self { server, pages, asked, _runtime: None }
    }

    /// For tests that wait for programs.
    pub fn beside() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let pages = runtime.block_on(Self::serving());
        Self { _runtime: Some(runtime), ..pages }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address)
    }

    pub fn put(&self, path: &str, content: &[u8], headers: &[(&'static str, &str)]) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let page = Page { status: 200, content: content.to_vec(), headers, ..Page::default() };
        self.pages.lock().unwrap().insert(path.to_owned(), page);
    }

    pub fn change(&self, path: &str, change: impl FnOnce(&mut Page)) {
        change(self.pages.lock().unwrap().get_mut(path).unwrap());
    }

    /// Since this was called last.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

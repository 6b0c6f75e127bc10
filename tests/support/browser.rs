//! Headless Chromium, driven through chromedriver (WebDriver, W3C).

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};

use super::http::Client;
use super::{eventually, parts, platform};

/// Under this key an answer holds an element's id (WebDriver, section 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Ends the test, loudly, where there is no Chromium.
#[macro_export]
macro_rules! needs_browser {
    () => {
        if !["/usr/bin/chromium", "/usr/bin/chromedriver"].iter().all(|p| std::path::Path::new(p).exists()) {
            $crate::support::announce_skip(&$crate::support::this_test(), "needs chromium and chromedriver");
            return;
        }
    };
}

/// One browser window. Dropping it ends browser and driver.
pub struct Browser {
    driver: Child,
    http: Client,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser with an empty profile.
    #[track_caller]
    pub fn start() -> Self {
        let profile = tempfile::Builder::new().prefix("faas-jails-browser-").tempdir().expect("making a profile");
        // In a pid namespace, with the driver as its first process: nothing of the browser outlives the driver.
        let mut command = Command::new("unshare");
        command.args(["--fork", "--pid", "--mount-proc", "--kill-child=SIGKILL", "/usr/bin/chromedriver", "--port=0"]);
        command.env("TMPDIR", profile.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        platform::ends_with_us(&mut command);
        let mut driver = command.spawn().expect("starting chromedriver");
        let said = BufReader::new(driver.stdout.take().expect("piped"));
        let port = said
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.rsplit_once("successfully on port ")?.1.trim_end_matches('.').parse::<u16>().ok())
            .expect("chromedriver says its port");
        let http = Client::new(([127, 0, 0, 1], port).into());
        let mut browser = Self { driver, http, session: String::new(), _profile: profile };
        let data = format!("--user-data-dir={}/profile", browser._profile.path().display());
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--window-size=1280,960", data,
                // A page that asks for fonts elsewhere does not wait for them.
                "--host-resolver-rules=MAP *.com ~NOTFOUND",
            ]},
        }}});
        let session = browser.call("POST", "/session", &capabilities);
        browser.session = format!("/session/{}", session["sessionId"].as_str().expect("a session"));
        browser
    }

    #[track_caller]
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_call(method, path, body).unwrap_or_else(|e| panic!("{method} {path} {body}: {e}"))
    }

    fn try_call(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let path = format!("{}{path}", self.session);
        let answer = match method {
            "GET" => self.http.get(&path),
            _ => self.http.json(method, &path, body),
        };
        let value = answer.value()["value"].clone();
        if answer.status == 200 { Ok(value) } else { Err(value["message"].to_string()) }
    }

    /// Opens an address.
    #[track_caller]
    pub fn open(&self, url: &str) {
        self.call("POST", "/url", &json!({ "url": url }));
    }

    fn find(&self, css: &str) -> Option<String> {
        let found = self.try_call("POST", "/element", &json!({"using": "css selector", "value": css})).ok()?;
        Some(found[ELEMENT].as_str()?.to_owned())
    }

    /// Clicks what this CSS selector finds first, as soon as it is there and can be clicked.
    #[track_caller]
    pub fn click(&self, css: &str) {
        eventually(&format!("a click on {css}"), || {
            self.try_call("POST", &format!("/element/{}/click", self.find(css)?), &json!({})).ok()
        });
    }

    /// Types into what this selector finds, after emptying it.
    #[track_caller]
    pub fn fill(&self, css: &str, text: &str) {
        eventually(&format!("typing into {css}"), || {
            let path = format!("/element/{}", self.find(css)?);
            self.try_call("POST", &format!("{path}/clear"), &json!({})).ok()?;
            self.try_call("POST", &format!("{path}/value"), &json!({ "text": text })).ok()
        });
    }

    /// The text that a user sees there; empty where nothing is found.
    pub fn text(&self, css: &str) -> String {
        let text = || self.try_call("GET", &format!("/element/{}/text", self.find(css)?), &Value::Null).ok();
        text().and_then(|t| t.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Waits until the text there holds this.
    #[track_caller]
    pub fn shows(&self, css: &str, wanted: &str) {
        eventually(&format!("{wanted:?} in {css}, which shows {:?}", self.text(css)), || {
            self.text(css).contains(wanted).then_some(())
        });
    }

    /// Waits until the field there holds this.
    #[track_caller]
    pub fn holds(&self, css: &str, wanted: &str) {
        let value = || self.try_call("GET", &format!("/element/{}/property/value", self.find(css)?), &Value::Null).ok();
        let value = || value().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        eventually(&format!("{wanted:?} in {css}"), || value().contains(wanted).then_some(()));
    }

    /// What the page and the browser complained about since the last call.
    #[track_caller]
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.call("POST", "/se/log", &json!({"type": "browser"}));
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries.iter().map(|e| format!("{}: {}", e["level"], e["message"])).collect()
    }

    /// Keeps a picture of the window under target/screenshots.
    #[track_caller]
    pub fn picture(&self, name: &str) -> PathBuf {
        let picture = self.call("GET", "/screenshot", &Value::Null);
        let bytes = base64::engine::general_purpose::STANDARD.decode(picture.as_str().expect("a picture"));
        let directory = parts::project().join("target/screenshots");
        std::fs::create_dir_all(&directory).expect("making target/screenshots");
        let path = directory.join(format!("{name}.png"));
        std::fs::write(&path, bytes.expect("base64")).expect("writing the picture");
        path
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // So that it takes its files with it.
        let _ = self.try_call("DELETE", "", &json!({}));
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

//! What a visitor does with a browser.

use serde_json::{Value, json};
use thirtyfour::{By, WebDriver};

use super::Cookie;

/// A browser with its own cookies, cache and history.
#[derive(Debug)]
pub(crate) struct Profile {
    driver: WebDriver,
}

impl Profile {
    pub(crate) fn new(driver: WebDriver) -> Self {
        Self { driver }
    }

    pub(crate) async fn open(&self, url: &str) {
        self.driver.goto(url).await.expect("a page");
    }

    /// What a visitor can read on the page.
    pub(crate) async fn text(&self) -> String {
        let body = self.driver.find(By::Tag("body")).await;
        body.expect("a body").text().await.expect("text")
    }

    /// Opens a page and reads it.
    pub(crate) async fn read(&self, url: &str) -> String {
        self.open(url).await;
        self.text().await
    }

    /// All cookies that the browser keeps, of whichever page.
    pub(crate) async fn cookies(&self) -> Vec<Cookie> {
        let answer = self.ask("Storage.getCookies", json!({})).await;
        serde_json::from_value(answer["cookies"].clone()).expect("cookies")
    }

    /// Cookies are kept by name, domain and path, so there may be several.
    pub(crate) async fn cookies_named(&self, name: &str) -> Vec<Cookie> {
        let mut cookies = self.cookies().await;
        cookies.retain(|cookie| cookie.name == name);
        cookies
    }

    /// The only one of this name.
    pub(crate) async fn cookie(&self, name: &str) -> Cookie {
        let mut cookies = self.cookies_named(name).await;
        assert_eq!(cookies.len(), 1, "{cookies:?}");
        cookies.remove(0)
    }

    /// What a script on the page gets from this expression.
    pub(crate) async fn script(&self, expression: &str) -> Value {
        let script = format!("return {expression}");
        let answer = self.driver.execute(script, Vec::<Value>::new()).await;
        answer.expect("a script runs").json().clone()
    }

    /// By the protocol of the developer tools.
    async fn ask(&self, method: &str, parameters: Value) -> Value {
        let answer = self.driver.cdp().send_raw(method, parameters).await;
        answer.expect("an answer of the browser")
    }
}

impl Drop for Profile {
    /// The browser ends with its driver. To end it here would wait for an
    /// answer, on a connection that only this blocked runtime could read.
    fn drop(&mut self) {
        let _ = self.driver.clone().leak();
    }
}

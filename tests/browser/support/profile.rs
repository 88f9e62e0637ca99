//! What a visitor does with a browser.

use std::time::Duration;

use serde_json::{Value, json};
use thirtyfour::{
    By, WebDriver, WebElement,
    extensions::query::{ElementQueryable as _, ElementWaitable as _},
};

use super::Cookie;

/// Far more than a page takes here; a wait that is this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the page.
const INTERVAL: Duration = Duration::from_millis(50);

/// The size of the browser's window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) is_phone: bool,
}

impl Window {
    pub(crate) const PHONE: Self = Self {
        width: 360,
        height: 800,
        is_phone: true,
    };
    pub(crate) const DESKTOP: Self = Self {
        width: 800,
        height: 560,
        is_phone: false,
    };
}

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

    /// What a visitor can read on the page, in one line.
    pub(crate) async fn text(&self) -> String {
        let body = self.driver.query(By::Tag("body"));
        let body = body.wait(PATIENCE, INTERVAL).first().await;
        let text = body.expect("a body").text().await.expect("text");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Opens a page and reads it.
    pub(crate) async fn read(&self, url: &str) -> String {
        self.open(url).await;
        self.text().await
    }

    /// Opens a page in a frame of the page that is shown, and reads it there.
    pub(crate) async fn read_framed(&self, url: &str) -> String {
        let frame = format!(
            "new Promise(loaded => {{
                const frame = document.createElement('iframe');
                frame.onload = loaded;
                frame.src = '{url}';
                document.body.append(frame);
            }}).then(() => null)"
        );
        self.script(&frame).await;
        self.driver.enter_frame(0).await.expect("a frame");
        self.text().await
    }

    pub(crate) async fn url(&self) -> String {
        let url = self.driver.current_url().await;
        url.expect("an address").to_string()
    }

    pub(crate) async fn back(&self) {
        self.driver.back().await.expect("a page before");
    }

    /// Presses the first button with this text, and waits for the page to which
    /// that leads.
    pub(crate) async fn press(&self, text: &str) {
        self.leave_by(&button(text)).await;
    }

    /// The same in the item of a list that has this text.
    pub(crate) async fn press_in(&self, item: &str, text: &str) {
        let item = format!("//li[contains(normalize-space(), '{item}')]");
        self.leave_by(&format!("{item}{}", button(text))).await;
    }

    /// Types into the field of this name.
    pub(crate) async fn fill(&self, name: &str, text: &str) {
        let field = self.find(&field(name)).await;
        field.send_keys(text).await.expect("a field to type into");
    }

    /// Sets the mark of the field of this name.
    pub(crate) async fn choose(&self, name: &str) {
        self.click(&field(name)).await;
    }

    /// The driver can be quicker than the browser, so it is not enough to wait
    /// for a page: it must be another one.
    async fn leave_by(&self, path: &str) {
        let page = self.find("/html").await;
        self.click(path).await;
        let left = page.wait_until().wait(PATIENCE, INTERVAL).stale().await;
        left.expect("another page");
    }

    async fn click(&self, path: &str) {
        let element = self.find(path).await;
        element.click().await.expect("what can be clicked");
    }

    async fn find(&self, path: &str) -> WebElement {
        match self.driver.find(By::XPath(path)).await {
            Ok(element) => element,
            Err(_) => panic!("no {path} on the page:\n{}", self.text().await),
        }
    }

    /// All cookies that the browser keeps, of whichever page.
    pub(crate) async fn cookies(&self) -> Vec<Cookie> {
        let response = self.ask("Storage.getCookies", json!({})).await;
        serde_json::from_value(response["cookies"].clone()).expect("cookies")
    }

    /// The same, by name, with the same digits for each site.
    pub(crate) async fn jar(&self) -> Vec<Cookie> {
        let cookies = self.cookies().await.into_iter();
        let mut cookies: Vec<_> = cookies.map(Cookie::with_equal_digits).collect();
        cookies.sort_by(|one, other| one.name.cmp(&other.name));
        cookies
    }

    /// The only cookie with the default name.
    pub(crate) async fn default_cookie(&self) -> Cookie {
        let mut cookies = self.cookies().await;
        cookies.retain(|cookie| cookie.clone().with_equal_digits().name == Cookie::DEFAULT_NAME);
        assert_eq!(cookies.len(), 1, "{cookies:?}");
        cookies.remove(0)
    }

    /// Cookies are kept by name, domain and path, so there may be several.
    pub(crate) async fn cookies_named(&self, name: &str) -> Vec<Cookie> {
        let mut cookies = self.cookies().await;
        cookies.retain(|cookie| cookie.name == name);
        cookies
    }

    /// What a script on the page gets from this expression.
    pub(crate) async fn script(&self, expression: &str) -> Value {
        let script = format!("return {expression}");
        let response = self.driver.execute(script, Vec::<Value>::new()).await;
        response.expect("a script runs").json().clone()
    }

    pub(crate) async fn forget_cookies(&self) {
        self.ask("Storage.clearCookies", json!({})).await;
    }

    /// Makes the page as large as this, whatever the screen.
    pub(crate) async fn resize(&self, window: Window) {
        let size = json!({
            "width": window.width,
            "height": window.height,
            "deviceScaleFactor": 1,
            "mobile": window.is_phone,
        });
        self.ask("Emulation.setDeviceMetricsOverride", size).await;
    }

    pub(crate) async fn screenshot(&self) -> Vec<u8> {
        self.driver.screenshot_as_png().await.expect("a picture")
    }

    /// By the protocol of the developer tools.
    async fn ask(&self, method: &str, parameters: Value) -> Value {
        let response = self.driver.cdp().send_raw(method, parameters).await;
        response.expect("a response of the browser")
    }
}

fn button(text: &str) -> String {
    format!("//button[normalize-space()='{text}' or @aria-label='{text}']")
}

fn field(name: &str) -> String {
    format!("//input[@name='{name}']")
}

impl Drop for Profile {
    /// The browser ends with its driver. To end it here would wait for an
    /// response, on a connection that only this blocked runtime could read.
    fn drop(&mut self) {
        let _ = self.driver.clone().leak();
    }
}

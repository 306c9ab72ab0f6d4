"""The central station in the browser: a subscriber of the gateway that serves a page. docs/dashboard.md."""

"""The routes of the API, the bodies that they take and give, and its errors."""

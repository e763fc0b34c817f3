"""MLPerf scenarios under LoadGen."""

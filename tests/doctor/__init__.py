"""Every check of the doctor, shown red on a real server."""

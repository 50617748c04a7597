"""Who may hold a slot, and when. Pure: knows neither bytes nor sockets nor the clock; `now` is an argument."""

"""What every case needs: a network, a tracker, torrents and processes that always end."""

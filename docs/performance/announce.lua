-- Announces for wrk: 65,536 torrents, 100,000 peer ids on 60,000 ports of one host.
local n = 0
request = function()
  n = n + 1
  local hash = string.format("%%%02x%%%02x", math.random(0, 255), math.random(0, 255))
  return wrk.format("GET", "/announce?info_hash=aaaaaaaaaaaaaaaaaa" .. hash
    .. "&peer_id=-LT20A0-" .. string.format("%012d", n % 100000)
    .. "&port=" .. (1024 + n % 60000)
    .. "&uploaded=0&downloaded=0&left=0&numwant=30&compact=1&key=abcdef01&event=started")
end

# The same as first.py by curl: one process a call, as a shell script has it.
post() { curl -sS "$BUNTIME_URL$1" -H "Authorization: Bearer $BUNTIME_API_KEY" -H "Content-Type: application/json" -d "$2"; }
id=$(post /sessions/create '{"ttl": 3600}')
id=${id#*\"sessionId\":\"}
id=${id%%\"*}
said=$(post /execute "{\"sessionId\": \"$id\", \"code\": \"console.log(6 * 7)\"}")
said=${said#*\"stdout\":\"}
printf '%s\n' "${said%%\\n*}"
curl -sS -o /dev/null -X DELETE "$BUNTIME_URL/sessions/$id" -H "Authorization: Bearer $BUNTIME_API_KEY"

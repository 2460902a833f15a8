package wire

import (
	"encoding/binary"
	"strconv"
)

// Field returns one field of the body of an ErrorResponse or NoticeResponse;
// nil when it is absent. Source: manual, 55.8 "Error and Notice Message
// Fields".
func Field(body []byte, code byte) []byte {
	for len(body) > 0 && body[0] != 0 {
		v, rest, ok := CString(body[1:])
		if !ok {
			return nil
		}
		if body[0] == code {
			return v
		}
		body = rest
	}
	return nil
}

// ErrorFields are the fields of an ErrorResponse that lockkeeper writes.
type ErrorFields struct {
	Severity, SQLSTATE, Message, Detail, Hint string
}

// AppendError appends an ErrorResponse.
func AppendError(dst []byte, f ErrorFields) []byte {
	start := len(dst)
	dst = append(dst, 'E', 0, 0, 0, 0)
	field := func(code byte, v string) {
		if v != "" {
			dst = append(append(append(dst, code), v...), 0)
		}
	}
	field('S', f.Severity)
	field('V', f.Severity)
	field('C', f.SQLSTATE)
	field('M', f.Message)
	field('D', f.Detail)
	field('H', f.Hint)
	dst = append(dst, 0)
	binary.BigEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-1)) // our own short texts
	return dst
}

// ShiftPosition returns the ErrorResponse or NoticeResponse m with its
// position field ("P", characters from 1) replaced by what shift makes of it;
// 0 drops the field. m itself is returned when it has no position.
func ShiftPosition(m Message, shift func(int) int) Message {
	body := m.Body()
	old, err := strconv.Atoi(string(Field(body, 'P')))
	if err != nil {
		return m
	}
	out := make([]byte, HeaderLen, len(m))
	out[0] = m.Type()
	for len(body) > 0 && body[0] != 0 {
		code := body[0]
		v, rest, ok := CString(body[1:])
		if !ok {
			return m
		}
		if code != 'P' {
			out = append(append(append(out, code), v...), 0)
		} else if p := shift(old); p > 0 {
			out = append(strconv.AppendInt(append(out, code), int64(p), 10), 0)
		}
		body = rest
	}
	out = append(out, 0)
	binary.BigEndian.PutUint32(out[1:], uint32(len(out)-1)) // no longer than m
	return out
}

// CommandTag cuts the tag from a CommandComplete body and reads the count of
// rows at its end ("UPDATE 3", "INSERT 0 3", "COPY 7"); rows is 0 when there
// is none.
func CommandTag(body []byte) (tag []byte, rows int64) {
	tag, _, _ = CString(body)
	n, scale := int64(0), int64(1)
	i := len(tag)
	for i > 0 && tag[i-1] >= '0' && tag[i-1] <= '9' && scale < 1e18 {
		n += int64(tag[i-1]-'0') * scale
		scale *= 10
		i--
	}
	if i == 0 || i == len(tag) || tag[i-1] != ' ' {
		return tag, 0
	}
	return tag, n
}

// FirstColumn returns the first column of a DataRow body; nil for NULL.
func FirstColumn(body []byte) []byte {
	if len(body) < 6 || binary.BigEndian.Uint16(body) == 0 {
		return nil
	}
	n := int32(binary.BigEndian.Uint32(body[2:])) // the protocol's Int32; -1 is NULL
	if n < 0 || int(n) > len(body)-6 {
		return nil
	}
	return body[6 : 6+n]
}

package com.atguigu.yygh.oss;

import com.atguigu.yygh.common.YyghException;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.LocalDateTime;
import java.util.List;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.atomic.AtomicLong;
import org.springframework.http.ContentDisposition;
import org.springframework.http.HttpHeaders;
import org.springframework.http.HttpStatus;
import org.springframework.http.MediaType;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.ResponseStatus;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.multipart.MultipartFile;

/** Keeps the last few uploads in memory. */
@RestController
@RequestMapping("/api/oss/files")
class FileController {

    private static final int KEPT = 20;

    private final ConcurrentSkipListMap<Long, Stored> files = new ConcurrentSkipListMap<>();
    private final AtomicLong ids = new AtomicLong();

    record FileInfo(long id, String name, int size, LocalDateTime uploaded) {
    }

    private record Stored(FileInfo info, byte[] content) {
    }

    FileController() {
        store("挂号须知.txt", "请携带有效证件，提前 30 分钟到院取号。\n".getBytes(StandardCharsets.UTF_8));
        store("医院等级说明.txt", "三级甲等为最高等级。\n".getBytes(StandardCharsets.UTF_8));
    }

    @GetMapping
    List<FileInfo> list() {
        return files.values().stream().map(Stored::info).toList();
    }

    @PostMapping
    @ResponseStatus(HttpStatus.CREATED)
    FileInfo upload(@RequestParam MultipartFile file) throws IOException {
        return store(file.getOriginalFilename(), file.getBytes());
    }

    @GetMapping("/{id}")
    ResponseEntity<byte[]> download(@PathVariable long id) {
        Stored stored = files.get(id);
        if (stored == null) {
            throw YyghException.notFound("文件", id);
        }
        ContentDisposition attachment = ContentDisposition.attachment()
                .filename(stored.info().name(), StandardCharsets.UTF_8)
                .build();
        return ResponseEntity.ok()
                .header(HttpHeaders.CONTENT_DISPOSITION, attachment.toString())
                .contentType(MediaType.APPLICATION_OCTET_STREAM)
                .body(stored.content());
    }

    private FileInfo store(String name, byte[] content) {
        FileInfo info = new FileInfo(ids.incrementAndGet(), name, content.length, LocalDateTime.now());
        files.put(info.id(), new Stored(info, content));
        while (files.size() > KEPT) {
            files.pollFirstEntry();
        }
        return info;
    }
}

package com.atguigu.yygh.cmn;

import com.atguigu.yygh.cmn.client.DictApi;
import com.atguigu.yygh.common.YyghException;
import com.atguigu.yygh.model.cmn.Dict;
import java.util.List;
import org.springframework.web.bind.annotation.RestController;

@RestController
class DictController implements DictApi {

    private final Dictionary dictionary;

    DictController(Dictionary dictionary) {
        this.dictionary = dictionary;
    }

    @Override
    public List<String> codes() {
        return dictionary.codes();
    }

    @Override
    public List<Dict> entries(String dictCode) {
        List<Dict> entries = dictionary.entries(dictCode);
        if (entries.isEmpty()) {
            throw YyghException.notFound("字典", dictCode);
        }
        return entries;
    }

    @Override
    public Dict entry(String dictCode, String value) {
        return entries(dictCode).stream()
                .filter(entry -> entry.value().equals(value))
                .findFirst()
                .orElseThrow(() -> YyghException.notFound("字典值", dictCode + "/" + value));
    }
}

package com.atguigu.yygh.cmn;

import com.atguigu.yygh.model.cmn.Dict;
import java.util.ArrayList;
import java.util.List;
import org.springframework.stereotype.Repository;

@Repository
class Dictionary {

    private final List<Dict> entries = new ArrayList<>();

    Dictionary() {
        add("HosLevel", "三级甲等", "三级乙等", "二级甲等", "二级乙等", "一级甲等");
        add("CertificatesType", "身份证", "户口本", "护照", "港澳居民来往内地通行证");
        add("Relation", "本人", "配偶", "父母", "子女", "其他");
        add("DoctorTitle", "主任医师", "副主任医师", "主治医师", "住院医师");
        add("PayType", "线上支付", "到院支付");
        add("District", "东湖区", "西山区", "南港区", "北原区", "高新区");
    }

    List<String> codes() {
        return entries.stream().map(Dict::dictCode).distinct().toList();
    }

    List<Dict> entries(String dictCode) {
        return entries.stream().filter(entry -> entry.dictCode().equals(dictCode)).toList();
    }

    private void add(String dictCode, String... names) {
        for (int i = 0; i < names.length; i++) {
            entries.add(new Dict(entries.size() + 1L, dictCode, String.valueOf(i + 1), names[i]));
        }
    }
}
